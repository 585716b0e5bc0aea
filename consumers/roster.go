package consumers

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicegate/sluice"
)

// roster is what all replicas know of the instances, in Redis (rest-api.md 5.5). k is base64url(group).base64url(id);
// the braces make the keys of one instance one slot.
//
//	sluice:instance:{k}        hash: schema, settings, principal, version, wish, touched, made, claimed, and for each partition
//	                           at:<topic>/<number> = "next committed last moved" (see spot)
//	sluice:instance:{k}:lease  the owner's name, with PX
//	sluice:instance:{k}:ended  why it ended, for an hour
//	sluice:replica:<name>      {"url":…,"version":…}, with PX
//	sluice:replicas            the names of those
//
// Every write of an instance is a script that asks for the lease first, so that a replica that was frozen cannot write
// over the one that took its place.
type roster struct {
	rdb   redis.UniversalClient
	me    string
	lease time.Duration
	idle  time.Duration // after which an instance that nobody owns is over
}

const (
	rosterPatience = time.Second // for one question to Redis
	keepHash       = time.Hour   // beyond the idle time, to be able to say that it expired
	replicasKey    = "sluice:replicas"
)

func (n name) keys() []string {
	k := "sluice:instance:{" + base64.RawURLEncoding.EncodeToString([]byte(n.group)) + "." + base64.RawURLEncoding.EncodeToString([]byte(n.id)) + "}"
	return []string{k, k + ":lease", k + ":ended"}
}

var (
	// enlist KEYS hash lease ended ARGV me lease-ms hash-ms now idle-ms made field value … answers 0 if the instance exists,
	// and 1 again to the call that made it: go-redis sends a script once more when its answer was late.
	enlist = redis.NewScript(strings.TrimSpace(`
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HGET', KEYS[1], 'made') == ARGV[6] then return 1 end
  local touched = tonumber(redis.call('HGET', KEYS[1], 'touched') or '0')
  if redis.call('EXISTS', KEYS[2]) == 1 or tonumber(ARGV[4]) - touched <= tonumber(ARGV[5]) then return 0 end
end
redis.call('DEL', KEYS[1], KEYS[3])
redis.call('HSET', KEYS[1], 'made', ARGV[6])
for i = 7, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1`))

	// claim KEYS hash lease ended ARGV me lease-ms now idle-ms may-adopt expired-text ended-ms claimed
	// answers {gone, why}, {mine, field, value, …}, {theirs, owner} or {free}.
	claimLease = redis.NewScript(strings.TrimSpace(`
local owner = redis.call('GET', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return {'gone', redis.call('GET', KEYS[3]) or ''} end
local again = owner == ARGV[1] and redis.call('HGET', KEYS[1], 'claimed') == ARGV[8]
if owner and not again then return {'theirs', owner} end
local touched = tonumber(redis.call('HGET', KEYS[1], 'touched') or '0')
if tonumber(ARGV[3]) - touched > tonumber(ARGV[4]) then
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[3], ARGV[6], 'PX', ARGV[7])
  return {'gone', ARGV[6]}
end
if ARGV[5] == '0' then return {'free'} end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[1], 'touched', ARGV[3], 'claimed', ARGV[8])
local all = redis.call('HGETALL', KEYS[1])
table.insert(all, 1, 'mine')
return all`))

	// write KEYS hash lease ended ARGV me lease-ms hash-ms release gone-fields-count field … field value …
	// answers 'ok', 'gone' (deleted by somebody), 'lost' (Redis has forgotten it) or the name of another owner.
	writeHash = redis.NewScript(strings.TrimSpace(`
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return owner end
if redis.call('EXISTS', KEYS[3]) == 1 then return 'gone' end
if redis.call('EXISTS', KEYS[1]) == 0 and ARGV[4] ~= 'whole' then return 'lost' end
local n = tonumber(ARGV[5])
for i = 6, 5 + n do redis.call('HDEL', KEYS[1], ARGV[i]) end
for i = 6 + n, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[4] == 'release' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) end
return 'ok'`))

	// strike KEYS hash lease ended ARGV me why ended-ms: nothing where another replica owns it.
	strike = redis.NewScript(strings.TrimSpace(`
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
return 1`))
)

func (r *roster) hashMS() int64 { return (r.idle + keepHash).Milliseconds() }

func rosterError(doing string, err error) error {
	if err == nil {
		return nil
	}
	return &sluice.Error{Kind: sluice.StoreDown, Msg: "The registry of consumer instances is not available.", Err: fmt.Errorf("%s: %w", doing, err)}
}

// enlist makes a new instance known. It reports false if there is one of that name.
func (r *roster) enlist(ctx context.Context, n name, fields map[string]string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, rosterPatience)
	defer cancel()
	args := []any{r.me, r.lease.Milliseconds(), r.hashMS(), time.Now().UnixMilli(), r.idle.Milliseconds(), uuid()}
	for f, v := range fields {
		args = append(args, f, v)
	}
	made, err := enlist.Run(ctx, r.rdb, n.keys(), args...).Int()
	return made == 1, rosterError("enlist", err)
}

// standing is what the roster says of an instance.
type standing struct {
	state  string // "gone", "mine", "theirs", "free"
	why    string
	owner  string
	fields map[string]string // of an instance that is mine now, and was nobody's a moment ago
}

func (r *roster) claim(ctx context.Context, n name, mayAdopt bool, expired string) (s standing, err error) {
	ctx, cancel := context.WithTimeout(ctx, rosterPatience)
	defer cancel()
	may := 0
	if mayAdopt {
		may = 1
	}
	answer, err := claimLease.Run(ctx, r.rdb, n.keys(), r.me, r.lease.Milliseconds(), time.Now().UnixMilli(), r.idle.Milliseconds(),
		may, expired, mournFor.Milliseconds(), uuid()).StringSlice()
	if err != nil || len(answer) == 0 {
		return s, rosterError("claim", err)
	}
	switch s.state = answer[0]; {
	case s.state == "mine":
		s.fields = map[string]string{}
		for i := 1; i+1 < len(answer); i += 2 {
			s.fields[answer[i]] = answer[i+1]
		}
	case len(answer) > 1 && s.state == "gone":
		s.why = answer[1]
	case len(answer) > 1:
		s.owner = answer[1]
	}
	return s, nil
}

// The ways to write a hash.
const (
	writeChanges = "changes"
	writeWhole   = "whole" // when Redis has forgotten the instance
	writeRelease = "release"
)

// write stores what has changed, and prolongs the lease or gives it up.
func (r *roster) write(ctx context.Context, n name, how string, set map[string]string, del []string) (answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, rosterPatience)
	defer cancel()
	args := []any{r.me, r.lease.Milliseconds(), r.hashMS(), how, len(del)}
	for _, f := range del {
		args = append(args, f)
	}
	for f, v := range set {
		args = append(args, f, v)
	}
	answer, err = writeHash.Run(ctx, r.rdb, n.keys(), args...).Text()
	return answer, rosterError("write", err)
}

func (r *roster) strike(ctx context.Context, n name, why string) error {
	ctx, cancel := context.WithTimeout(ctx, rosterPatience)
	defer cancel()
	return rosterError("strike", strike.Run(ctx, r.rdb, n.keys(), r.me, why, mournFor.Milliseconds()).Err())
}

// announce says where this replica is, for as long as it lives.
func (r *roster) announce(ctx context.Context, document string) error {
	ctx, cancel := context.WithTimeout(ctx, rosterPatience)
	defer cancel()
	err := r.rdb.Set(ctx, "sluice:replica:"+r.me, document, r.lease).Err()
	if err == nil {
		err = r.rdb.SAdd(ctx, replicasKey, r.me).Err()
	}
	return rosterError("announce", err)
}

func (r *roster) retire(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rosterPatience)
	defer cancel()
	err := r.rdb.SRem(ctx, replicasKey, r.me).Err()
	if err == nil {
		err = r.rdb.Del(ctx, "sluice:replica:"+r.me).Err()
	}
	return rosterError("retire", err)
}

// replica is what another one has announced, "" if it has gone.
func (r *roster) replica(ctx context.Context, who string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, rosterPatience)
	defer cancel()
	text, err := r.rdb.Get(ctx, "sluice:replica:"+who).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	return text, rosterError("look for a replica", err)
}

// others are the names of the other replicas; those that have gone without a word are forgotten on the way.
func (r *roster) others(ctx context.Context) (documents []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, rosterPatience)
	defer cancel()
	names, err := r.rdb.SMembers(ctx, replicasKey).Result()
	if err != nil {
		return nil, rosterError("list replicas", err)
	}
	for _, who := range names {
		if who == r.me {
			continue
		}
		text, err := r.replica(ctx, who)
		switch {
		case err != nil:
			return nil, err
		case text == "":
			_ = r.rdb.SRem(ctx, replicasKey, who).Err() // the next one will
		default:
			documents = append(documents, text)
		}
	}
	return documents, nil
}
