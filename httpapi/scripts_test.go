package httpapi

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// spoken is one keep-alive connection on which a client's requests are sent byte for byte (rest-api.md 9).
type spoken struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (p *pull) speak() *spoken {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return &spoken{p.t, conn, bufio.NewReader(conn)}
}

// send writes a request line and headers as given, and a body with its length if there is a Content-Length to fill in.
func (s *spoken) send(status int, want string, body string, lines ...string) answer {
	s.t.Helper()
	head := strings.Join(lines, "\r\n") + "\r\n\r\n"
	if err := s.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.WriteString(s.conn, head+body); err != nil {
		s.t.Fatal(err)
	}
	method, _, _ := strings.Cut(lines[0], " ")
	res, err := http.ReadResponse(s.in, &http.Request{Method: method})
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if res.StatusCode != status || (want != "*" && string(got) != want) {
		s.t.Fatalf("%s: %d %s, want %d %s", lines[0], res.StatusCode, got, status, want)
	}
	return answer{res.StatusCode, res.Header, string(got)}
}

func length(body string) string { return fmt.Sprintf("Content-Length: %d", len(body)) }

// made is the path of the base_uri in the answer of a create call, which must begin as said.
func (s *spoken) made(a answer, prefix string) string {
	s.t.Helper()
	var m struct {
		Base string `json:"base_uri"`
		ID   string `json:"instance_id"`
	}
	if err := json.Unmarshal([]byte(a.body), &m); err != nil || !strings.HasPrefix(m.Base, prefix) || !strings.HasSuffix(m.Base, "/instances/"+m.ID) {
		s.t.Fatalf("%s: %v", a.body, err)
	}
	return strings.TrimPrefix(m.Base, strings.TrimSuffix(prefix, "/consumers/"))
}

// one is a record as v1 shows it.
func one(topic, value string, offset int) string {
	return fmt.Sprintf(`[{"topic":"%s","key":null,"value":"%s","partition":0,"offset":%d}]`, topic, base64.StdEncoding.EncodeToString([]byte(value)), offset)
}

// The Go consumer of v1, gonsumer 0.2.0 to 0.4.2.
func TestScriptA(t *testing.T) {
	p := pullers(t, func(_ *Config, c *consumers.Config) { c.InstanceTimeout = 6 * time.Second })
	topic, group := p.k.Topic(t, "NativeCmsPublicationEvents", 1, "max.message.bytes=25165824"), backend.Unique("g")
	s := p.speak()
	agent := "User-Agent: Go-http-client/1.1"
	create := func(reset string) string {
		t.Helper()
		body := `{"auto.offset.reset": "` + reset + `", "auto.commit.enable": "false"}`
		a := s.send(200, "*", body, "POST /consumers/"+group+" HTTP/1.1", "Host: kafka", agent, length(body), "Content-Type: application/json", "Accept-Encoding: gzip")
		if ct := a.header.Get("Content-Type"); ct != "application/vnd.kafka.v1+json" {
			t.Fatal(ct)
		}
		return s.made(a, "http://kafka/consumers/")
	}
	read := func(status int, want, path string) answer {
		t.Helper()
		return s.send(status, want, "", "GET "+path+"/topics/"+topic+" HTTP/1.1", "Host: kafka", agent, "Accept: application/json")
	}
	commit := func(want, path string) {
		t.Helper()
		s.send(200, want, "", "POST "+path+"/offsets HTTP/1.1", "Host: kafka", agent, "Content-Length: 0")
	}
	remove := func(status int, path string) {
		t.Helper()
		s.send(status, "*", "", "DELETE "+path+" HTTP/1.1", "Host: kafka", agent)
	}
	until := func(want, path string) {
		t.Helper()
		await(t, "the record", func() bool { return read(200, "*", path).body == want })
	}

	p.produce(topic, 0, "before")
	path := create("largest")
	read(200, "[]", path)
	commit("[]", path)                                      // (a), and (g): what was there before the first read is not seen
	await(t, "records behind the first read", func() bool { // the position is the end as it was when it was found
		p.produce(topic, 0, "after")
		return strings.Contains(read(200, "*", path).body, `"value":"YWZ0ZXI="`)
	})
	s.send(200, "*", "", "POST "+path+"/offsets HTTP/1.1", "Host: kafka", agent, "Content-Length: 0")
	end := func() int {
		cs, err := p.offsets.Group(t.Context(), group, []sluice.Partition{{Topic: topic}})
		if err != nil {
			t.Fatal(err)
		}
		return int(cs[0].Offset)
	}
	n := end()
	p.produce(topic, 0, "next")
	until(one(topic, "next", n), path)
	// (f): killed between read and commit, a new instance gets the same again. (h): the one left behind expires.
	path = create("largest")
	until(one(topic, "next", n), path)
	commit(fmt.Sprintf(`[{"topic":"%s","partition":0,"consumed":%d,"committed":%d}]`, topic, n, n), path)
	if end() != n+1 {
		t.Fatal(end())
	}
	// (c) and (d): a value of 16 MiB, and gzip only for those who ask for it.
	big := strings.Repeat("0123456789abcdef", 1<<20)
	p.produce(topic, 0, big)
	var a answer
	await(t, "the large record", func() bool { a = read(200, "*", path); return a.body != "[]" })
	if a.body != one(topic, big, n+1) || a.header.Get("Content-Encoding") != "" || a.header.Get("Content-Type") != "application/json" {
		t.Fatal(len(a.body), a.header)
	}
	remove(204, path)
	remove(404, path)
	// (b): after the idle time it is gone, and a new one works.
	path = create("latest")
	await(t, "the end of an idle instance", func() bool {
		_, err := p.room.Instance(group, path[strings.LastIndexByte(path, '/')+1:])
		return err != nil
	})
	read(404, `{"error_code":40403,"message":"Consumer instance not found.","detail":"expired after 6 s without a request"}`, path)
	path = create("latest")
	until(one(topic, big, n+1), path)
	commit("*", path)
	remove(204, path)
}

// The Java consumer up to 1.9.0, v1: it follows base_uri as given.
func TestScriptE(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	p.produce(topic, 0, "a", "b")
	s := p.speak()
	host := "Host: " + p.addr
	body := `{"auto.offset.reset": "smallest", "auto.commit.enable": "false"}`
	a := s.send(200, "*", body, "POST /consumers/"+group+" HTTP/1.1", host, "Content-Type: application/json", length(body))
	path := s.made(a, p.url+"/consumers/")
	want := strings.TrimSuffix(one(topic, "a", 0), "]") + "," + strings.TrimPrefix(one(topic, "b", 1), "[")
	await(t, "the records", func() bool {
		return s.send(200, "*", "", "GET "+path+"/topics/"+topic+" HTTP/1.1", host, "Accept: application/json").body == want
	})
	s.send(200, fmt.Sprintf(`[{"topic":"%s","partition":0,"consumed":1,"committed":1}]`, topic), "", "POST "+path+"/offsets HTTP/1.1", host, "Content-Length: 0")
	p.wantCommitted(group, topic, 0, 2)
	s.send(204, "", "", "DELETE "+path+" HTTP/1.1", host)
}

// The Java consumer 2.0.0, v2, and its health check, which reads a v1 path on a v2 instance.
func TestScriptF(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	s := p.speak()
	host, sends, takes := "Host: "+p.addr, "Content-Type: "+typeV2Name, "Accept: "+typeV2Name
	body := `{"auto.offset.reset": "earliest", "auto.commit.enable": "false"}`
	path := s.made(s.send(200, "*", body, "POST /consumers/"+group+" HTTP/1.1", host, sends, length(body)), p.url+"/consumers/")
	wish := `{"topics": ["` + topic + `"]}`
	s.send(204, "", wish, "POST "+path+"/subscription HTTP/1.1", host, sends, length(wish))
	p.want(200, "*", "POST", "/topics/"+topic, `{"records":[{"value":"YQ==","timestamp":1612554562000}]}`)
	want := fmt.Sprintf(`[{"topic":"%s","key":null,"value":"YQ==","partition":0,"offset":0,"timestamp":1612554562000}]`, topic)
	await(t, "the record", func() bool {
		a := s.send(200, "*", "", "GET "+path+"/records HTTP/1.1", host, takes)
		return a.body == want && a.header.Get("Content-Type") == typeV2Name
	})
	s.send(200, "[]", "", "POST "+path+"/offsets HTTP/1.1", host, "Content-Length: 0")
	p.wantCommitted(group, topic, 0, 1)
	s.send(204, "", "", "DELETE "+path+"/subscription HTTP/1.1", host, takes)
	s.send(204, "", "", "DELETE "+path+" HTTP/1.1", host, takes)

	check := "/consumers/" + backend.Unique("healthcheck")
	path = s.made(s.send(200, "*", "", "POST "+check+" HTTP/1.1", host, sends, "Content-Length: 0"), p.url+"/consumers/")
	s.send(200, "[]", "", "GET "+path+"/topics/"+topic+" HTTP/1.1", host, takes)
	s.send(204, "", "", "DELETE "+path+" HTTP/1.1", host, takes)
}

// What a read of v1 refuses, in the order of the contract, and what it settles.
func TestV1ReadsRefuseOtherTopics(t *testing.T) {
	p := pullers(t)
	topic, other := p.k.Topic(t, "orders", 1), p.k.Topic(t, "orders", 1)
	made := func(options string, headers ...string) string {
		t.Helper()
		var m struct {
			Base string `json:"base_uri"`
		}
		a := p.want(200, "*", "POST", "/consumers/"+backend.Unique("g"), options, headers...)
		if err := json.Unmarshal([]byte(a.body), &m); err != nil {
			t.Fatal(err)
		}
		return m.Base
	}
	const quick = `{"consumer.request.timeout.ms":"50"}`
	const others = `{"error_code":40901,"message":"Consumer cannot subscribe the the specified target because it has already subscribed to other topics."}`
	nosuch := backend.Unique("nosuch")
	base := made(quick)
	p.want(404, `{"error_code":40403,"message":"Consumer instance not found.","detail":"never existed"}`, "GET", "/consumers/g/instances/none/topics/"+nosuch, "")
	p.want(406, "*", "GET", base+"/topics/"+nosuch, "", "Accept", "application/vnd.kafka.json.v1+json")
	start := time.Now()
	p.want(404, `{"error_code":40401,"message":"Topic not found."}`, "GET", base+"/topics/"+nosuch, "")
	if d := time.Since(start); d > time.Second {
		t.Errorf("an unknown topic took %v", d)
	}
	p.want(200, "[]", "GET", base+"/topics/"+topic, "")
	p.want(409, others, "GET", base+"/topics/"+other, "")
	p.want(200, `[]`, "POST", base+"/offsets", "")

	both := made(quick, "Content-Type", typeV2Name)
	p.subscribe(both, topic, other)
	p.want(409, others, "GET", both+"/topics/"+topic, "")
	exactly := made(quick, "Content-Type", typeV2Name)
	p.subscribe(exactly, topic)
	p.want(200, "[]", "GET", exactly+"/topics/"+topic, "")
	taken := made(quick, "Content-Type", typeV2Name)
	p.want(204, "", "POST", taken+"/assignments", places(topic, 0), "Content-Type", typeV2Name)
	p.want(409, others, "GET", taken+"/topics/"+topic, "")

	// A create call without a versioned type leaves the API open; the first call that only one of them has settles it.
	first, second := made(quick), made(quick)
	p.want(200, "[]", "GET", first+"/topics/"+topic, "")
	p.call("GET", first+"/subscription", "")
	p.want(204, "", "POST", second+"/subscription", `{"topics":["`+topic+`"]}`)
	for base, want := range map[string]string{first: "application/vnd.kafka.binary.v1+json", second: "application/vnd.kafka.binary.v2+json"} {
		if ct := p.want(200, "[]", "GET", base+"/topics/"+topic, "").header.Get("Content-Type"); ct != want {
			t.Errorf("type %s, want %s", ct, want)
		}
	}
}
