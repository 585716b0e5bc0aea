package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
)

// wire is a client's keep-alive connection at the least cost: requests are written as ready bytes, answers are read into
// one buffer. A client of net/http would take more of the machine than what is measured.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	body bytes.Buffer
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
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	w.body.Reset()
	if _, err := w.body.ReadFrom(resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %d: %.300s", resp.StatusCode, w.body.Bytes())
	}
	return w.body.Bytes(), nil
}
