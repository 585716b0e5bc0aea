package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/sluicegate/sluice/gateway"
)

// Set by the linker: deployments/local/buildinfo.sh. A plain `go build` leaves them empty; then Go's own record speaks.
var releaseVersion, repository, revision, dateTime string

type version struct{}

// Run prints the build on one line.
func (version) Run() error {
	b := build()
	fmt.Printf("sluice %s, revision %s, built %s with %s\n", b.Version, b.Revision, b.DateTime, b.Builder)
	return nil
}

func build() gateway.Build {
	b := gateway.Build{
		Version: releaseVersion, Repository: repository, Revision: revision, DateTime: dateTime,
		Builder: "go version " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && b.Revision == "" {
			b.Revision = s.Value
		}
	}
	if b.Version == "" {
		b.Version = "0.0.0-dev"
	}
	if b.Repository == "" {
		b.Repository = "https://" + info.Main.Path
	}
	return b
}
