package httpapi

import (
	"bytes"
	"cmp"
	"html/template"
	"regexp"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// goodToGo is the readiness probe (operations-and-security.md 2.2 and 3): false for what is local to this replica, and
// for Kafka only when it has been out of reach for longer than the grace.
func (s *Server) goodToGo(c *fiber.Ctx) error {
	reason := ""
	switch {
	case s.draining.Load():
		reason = "draining"
	case !s.ready.Load():
		reason = "starting"
	case s.budget.exhausted():
		reason = "memory budget exhausted"
	default:
		reason = s.checks.kafkaTrouble()
	}
	status := fiber.StatusOK
	if reason != "" {
		status = fiber.StatusServiceUnavailable
	}
	s.send(c, status, "text/plain; charset=US-ASCII", []byte(cmp.Or(reason, "OK")))
	c.Set(fiber.HeaderCacheControl, "no-cache")
	return nil
}

// live depends on nothing outside the process: else an outage of Kafka became a loop of restarts.
func (s *Server) live(c *fiber.Ctx) error {
	s.send(c, fiber.StatusOK, "text/plain; charset=US-ASCII", []byte("OK"))
	return nil
}

func (s *Server) ping(c *fiber.Ctx) error {
	s.send(c, fiber.StatusOK, "text/plain; charset=US-ASCII", []byte("pong"))
	return nil
}

// health serves the stored results of the background checks, so it answers at once even while Kafka hangs. It is
// always 200: the body says what is wrong.
func (s *Server) health(c *fiber.Ctx) error {
	report := s.checks.report()
	if !wantsHTML(c) {
		return s.sendJSON(c, fiber.StatusOK, report)
	}
	var page bytes.Buffer
	if err := healthPage.Execute(&page, report); err != nil {
		return err
	}
	s.send(c, fiber.StatusOK, fiber.MIMETextHTMLCharsetUTF8, page.Bytes())
	c.Set(fiber.HeaderContentSecurityPolicy, "default-src 'none'")
	return nil
}

func wantsHTML(c *fiber.Ctx) bool {
	return strings.Contains(strings.ToLower(accept(c)), "text/html")
}

var healthPage = template.Must(template.New("health").Funcs(template.FuncMap{
	"link": func(s string) bool { return strings.HasPrefix(s, "http") },
}).Parse(`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{{.Name}}</title></head><body>
<h1>{{.Name}}: {{if .OK}}healthy{{else}}CRITICAL OR DEGRADED{{end}}</h1>
<p>{{.Description}} · <a href="{{.Runbook}}">runbook of {{.SystemCode}}</a></p>
{{range .Checks}}<h2>{{.Name}}: {{if .OK}}OK{{else}}FAILED, severity {{.Severity}}{{end}}</h2>
<dl><dt>Output</dt><dd>{{.CheckOutput}}</dd><dt>Business impact</dt><dd>{{.BusinessImpact}}</dd>
<dt>Technical summary</dt><dd>{{.TechnicalSummary}}</dd>
<dt>Panic guide</dt><dd>{{if link .PanicGuide}}<a href="{{.PanicGuide}}">{{.PanicGuide}}</a>{{else}}{{.PanicGuide}}{{end}}</dd>
<dt>Last updated</dt><dd>{{.LastUpdated}}</dd></dl>
{{end}}</body></html>
`))

var (
	revisionForm = regexp.MustCompile(`^[0-9a-f]{5,40}$`)
	dateTimeForm = regexp.MustCompile(`^[0-9]{14}$`)
	semverForm   = regexp.MustCompile(`^v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)
	repoForm     = regexp.MustCompile(`^(https?|git|ssh)://\S+$|^git@\S+:\S+$`)
)

// buildInfo tells what runs. A value of the wrong form is replaced by words about it, as the library of the other
// services does.
func (s *Server) buildInfo(c *fiber.Ctx) error {
	b := s.cfg.Build
	if !semverForm.MatchString(b.Version) {
		b.Version = "Version " + b.Version + " is not a semantic version"
	}
	if !repoForm.MatchString(b.Repository) {
		b.Repository = "Repository " + b.Repository + " is not a git, ssh or http URL"
	}
	if !revisionForm.MatchString(b.Revision) {
		b.Revision = "Revision " + b.Revision + " does not match regex " + revisionForm.String()
	}
	if !dateTimeForm.MatchString(b.DateTime) {
		b.DateTime = "DateTime " + b.DateTime + " does not match regex " + dateTimeForm.String()
	}
	body, err := encode(struct {
		Version    string `json:"version"`
		Repository string `json:"repository"`
		Revision   string `json:"revision"`
		Builder    string `json:"builder"`
		DateTime   string `json:"dateTime"`
	}(b))
	if err != nil {
		return err
	}
	s.send(c, fiber.StatusOK, "application/json; charset=UTF-8", body)
	return nil
}

// showMetrics is the scrape, in the text format.
func (s *Server) showMetrics(c *fiber.Ctx) error {
	from := s.needs.Gatherer
	if from == nil {
		from = prometheus.DefaultGatherer
	}
	families, err := from.Gather()
	if err != nil && len(families) == 0 {
		return err
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	var out bytes.Buffer
	e := expfmt.NewEncoder(&out, format)
	for _, family := range families {
		if err := e.Encode(family); err != nil {
			return err
		}
	}
	s.send(c, fiber.StatusOK, string(format), out.Bytes())
	return nil
}
