package main

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
)

// explain adds to a reason that there are no brokers where the old proxy found them.
func (l *legacySettings) explain(reason error) error {
	_, zookeeper := l.properties["zookeeper.connect"]
	if _, there := l.properties["bootstrap.servers"]; zookeeper && !there && strings.Contains(reason.Error(), "SLUICE_KAFKA_BROKERS") {
		return fmt.Errorf("%w; ZooKeeper (zookeeper.connect) does not supply them any more", reason)
	}
	return reason
}

// report says once what became of everything: a line for each setting, and one for each sort of names that have no
// effect.
func (l *legacySettings) report(log *slog.Logger) {
	for _, row := range legacyRows {
		p, there := l.properties[row.property]
		for _, name := range row.settings {
			s, set := l.set[name]
			if !there || !set || s.from != p && !row.part {
				continue
			}
			if by := s.winner(); by != "" {
				log.Warn("legacy setting is overridden", "legacy", p.place(), "setting", name, "by", by)
				continue
			}
			log.Info("legacy setting", "legacy", p.place(), "setting", name, "value", row.shown(s.text))
		}
	}
	for _, s := range l.shadowed {
		log.Warn("legacy setting is overridden", "legacy", s.property.place(), "by", s.winner.place())
	}
	if len(l.without) > 0 {
		log.Warn("legacy settings without effect", "names", inOrder(l.without))
	}
	if len(l.later) > 0 {
		log.Warn("legacy settings of what Sluice does not have yet, without effect", "names", inOrder(l.later))
	}
	if len(l.unknown) > 0 {
		log.Warn("unknown legacy settings, without effect", "names", inOrder(l.unknown))
	}
}

// inOrder has each name once.
func inOrder(names []string) []string { return slices.Compact(slices.Sorted(slices.Values(names))) }

// winner is what of Sluice's own has set the flag to something else, "" if nothing has.
func (s legacySetting) winner() string {
	value, err := s.decoded()
	if err != nil || reflect.DeepEqual(value, s.flag.Target.Interface()) {
		return ""
	}
	for _, name := range s.flag.Envs {
		if _, there := os.LookupEnv(name); there {
			return name
		}
	}
	return "--" + s.flag.Name + " or the file of --config"
}

// shown is the value for the log, without what is secret in it.
func (r legacyRow) shown(text string) string {
	if r.secret {
		return "[redacted]"
	}
	if !slices.Contains(r.settings, "schema-registry-url") {
		return text
	}
	var all []string
	for address := range strings.SplitSeq(text, ",") {
		u, err := url.Parse(address)
		if err != nil {
			return "[redacted]"
		}
		u.User = nil
		all = append(all, u.String())
	}
	return strings.Join(all, ",")
}
