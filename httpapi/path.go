package httpapi

import (
	"bytes"
	"errors"
	"net/url"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// canonicalPath is the path the router sees: empty segments do not count, and what needed no percent-encoding has none
// (RFC 3986, 6.2.2.2). Everything else stays encoded, %2F and %25 above all, so that decoding a segment afterwards
// decodes it once. Behind a percent sign that begins nothing all stays as it is: "%%34%31" is no "%41". It returns path
// itself when there is nothing to do.
func canonicalPath(path []byte) []byte {
	clean := bytes.IndexByte(path, '%') < 0 && !bytes.Contains(path, []byte("//")) && (len(path) < 2 || path[len(path)-1] != '/')
	if clean || len(path) == 0 || path[0] != '/' {
		return path
	}
	out := make([]byte, 0, len(path))
	sound := true
	for i := 0; i < len(path); i++ {
		b := path[i]
		if b == '%' && sound {
			v, ok := escaped(path[i:])
			if sound = ok; ok && unreserved(v) {
				b, i = v, i+2
			}
		}
		if b == '/' && path[i] == '/' && len(out) > 0 && out[len(out)-1] == '/' {
			continue
		}
		out = append(out, b)
	}
	if len(out) > 1 && out[len(out)-1] == '/' {
		out = out[:len(out)-1]
	}
	return out
}

// escaped is the byte that path begins with, percent-encoded.
func escaped(path []byte) (byte, bool) {
	if len(path) < 3 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(path[1:3]), 16, 8)
	return byte(v), err == nil
}

func unreserved(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '.' || b == '_' || b == '~'
}

// segment is a part of the path, decoded once ('+' is a plus) and copied: it may outlive the request.
func segment(c *fiber.Ctx, name string) (string, error) {
	s, err := url.PathUnescape(c.Params(name))
	if err != nil {
		return "", errNotFound
	}
	return strings.Clone(s), nil
}

// topicName is the topic of the path. A name that Kafka would not take names no topic: kfake and old brokers are not
// asked, they would answer otherwise.
func topicName(c *fiber.Ctx) (string, error) {
	name, err := segment(c, "topic")
	if err != nil {
		return "", err
	}
	if !legalTopic(name) {
		return "", errUnknownTopic
	}
	return name, nil
}

func legalTopic(name string) bool {
	if name == "" || len(name) > 249 || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		b := name[i]
		if !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '.' || b == '_' || b == '-') {
			return false
		}
	}
	return true
}

// partitionNumber is the partition of the path. What is no integer is no such path; what is no partition of any topic
// is an unknown partition.
func partitionNumber(c *fiber.Ctx) (int32, error) {
	text, err := segment(c, "partition")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || text[0] == '+' {
		if errors.Is(err, strconv.ErrRange) {
			return 0, errUnknownPartition
		}
		return 0, errNotFound
	}
	if n < 0 || n > 1<<31-1 {
		return 0, errUnknownPartition
	}
	return int32(n), nil
}
