package httpapi

import (
	_ "embed"
	"slices"
)

//go:embed page/index.html
var tailPage []byte

// TailPage is a page for RootPage: the live tail of topic "orders" by the browser's own EventSource, and a form that
// produces a record. It loads nothing from anywhere.
func TailPage() []byte { return slices.Clone(tailPage) }
