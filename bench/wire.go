package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
)

// wire is a client's keep-alive connection at the least cost: requests are written as ready bytes, answers are read into
// one buffer, and of their headers only the framing is looked at. A client of net/http would take more of the machine
// than what is measured.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	body []byte
}

func dialWire(addr string) (*wire, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &wire{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}, nil
}

// request is a ready request.
func request(method, host, path, headers string, body []byte) []byte {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s", method, path, host, headers)
	if body != nil {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	return append([]byte(head+"\r\n"), body...)
}

// do sends a request and returns the body of the answer, which must be 200. It is good until the next call.
func (w *wire) do(request []byte) ([]byte, error) {
	if _, err := w.conn.Write(request); err != nil {
		return nil, err
	}
	status, err := w.line()
	if err != nil {
		return nil, err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 200 "))
	said := ""
	if !ok {
		said = string(status)
	}
	length, err := w.head()
	if err != nil {
		return nil, err
	}
	w.body = w.body[:0]
	if length >= 0 {
		err = w.take(length)
	} else {
		err = w.chunks()
	}
	if err == nil && !ok {
		err = fmt.Errorf("answered %s: %.300s", said, w.body)
	}
	return w.body, err
}

// line is good until the next read.
func (w *wire) line() ([]byte, error) {
	line, err := w.in.ReadSlice('\n')
	return bytes.TrimSuffix(line, []byte("\r\n")), err
}

// head reads the headers and tells the length of the body, -1 for one in chunks.
func (w *wire) head() (length int, err error) {
	length = -1
	for {
		line, err := w.line()
		if err != nil || len(line) == 0 {
			return length, err
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
}

// take appends n bytes to the body.
func (w *wire) take(n int) error {
	at := len(w.body)
	if cap(w.body) < at+n {
		w.body = append(make([]byte, 0, 2*(at+n)), w.body...)
	}
	w.body = w.body[:at+n]
	_, err := io.ReadFull(w.in, w.body[at:])
	return err
}

func (w *wire) chunks() error {
	for {
		line, err := w.line()
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return err
		}
		if err := w.take(int(n)); err != nil {
			return err
		}
		if end, err := w.line(); err != nil || len(end) > 0 {
			return fmt.Errorf("a chunk did not end where it said: %q, %w", end, err)
		}
		if n == 0 {
			return nil
		}
	}
}
