// Package conformance is the contract of the classic REST API as tests: black box, by base URL alone. A row of the
// contract is one subtest, named by its section, so that -run TestConformance/2.3 runs one section against
//
//	TEST_REST_URL         any server, e.g. http://127.0.0.1:8082 (user:password@ and a path prefix may be part of it);
//	                      without it the suite starts the real sluice over the back end of TEST_KAFKA
//	TEST_KAFKA_BROKERS    the Kafka behind that server: topics are made there, and what was produced is looked up there
//	TEST_REST_REGISTRY    the schema registry that server uses; without it the rows that need one are not run
//	TEST_REST_REPORT      a file for a table of all rows, with what each one that differs answered instead
//
// Rows that need a gateway of their own, in a mode or beside a Kafka that can be stopped, run only against the sluice of
// this tree. docs/compatibility.md says how to run it and what came out.
package conformance

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluicegate/sluice/e2e/peers"
)

// sections is the suite, in the order of the contract. Each part is called with the one server they share, and makes
// topics and groups of its own.
var sections = []struct {
	name string
	rows func(*testing.T, *server)
}{
	{"1.1", httpRules},
	{"1.2", bodies},
	{"1.3", strictJSON},
	{"1.4", errorTable},
	{"1.4-denied", denied},
	{"2.1", versions},
	{"2.2", contentTypes},
	{"2.3", accepts},
	{"3", metadata},
	{"4.1", produceRequests},
	{"4.2", formatRows},
	{"4.4", faults},
	{"4.5", delivery},
	{"5.1", creating},
	{"5.2", oneRegistry},
	{"5.3", baseURI},
	{"5.4", life},
	{"5.6", committing},
	{"5.7", readingRules},
	{"6", readingV1},
	{"7.2", subscribing},
	{"7.2-seek", seeking},
	{"7.3", recordsV2},
	{"7.4", offsetsV2},
	{"8", browsing},
	{"9.1", commonRules},
	{"9.2", scriptA},
	{"9.3", scriptB},
	{"9.4", otherScripts},
	{"9.5", scriptG},
	{"14", complaints},
	{"14-produce", produceComplaints},
	{"15.1", replicas},
	{"15.2", unknownAndStopped},
	{"15.3", roundTrips},
	{"15.4", goingOn},
}

func TestConformance(t *testing.T) {
	s := serverUnderTest(t)
	t.Cleanup(func() { s.report.finish(t) }) // after the last parallel part
	for _, part := range sections {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel() // a read that has to wait costs the others nothing
			part.rows(t, s)
		})
	}
}

var program string // of sluice; "" where the server is somebody else's

func TestMain(m *testing.M) {
	flag.Parse()
	// The parts mostly wait for the server: more of them at once than there are cores.
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "sluice-conformance-")
	if err == nil && os.Getenv("TEST_REST_URL") == "" {
		program, err = peers.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	client.CloseIdleConnections()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
