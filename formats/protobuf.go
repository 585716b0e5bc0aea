package formats

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// protobufCodec is Protobuf's binary and JSON encoding. Before the message stand the indexes that lead to its type in
// the schema: their number, then each, as zigzag varints; the list of a single 0, the first message, is shortened to a
// 0. What is written here is always the first message, since the classic API cannot name another.
type protobufCodec struct {
	file  protoreflect.FileDescriptor
	types linker.Resolver // of Any and of extensions
}

const (
	rootFile    = "schema.proto"
	mostIndexes = 64 // messages inside each other
)

func compileProtobuf(text string, refs []reference, w *weights) (codec, error) {
	files := map[string]string{rootFile: text}
	for _, ref := range refs {
		files[ref.name] = ref.text
	}
	for _, source := range files {
		if err := w.protobuf(source); err != nil {
			return nil, err
		}
	}
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(files)}),
		MaxParallelism: 1,
	}
	compiled, err := c.Compile(context.Background(), rootFile) // texts in memory: nothing to wait for
	if err != nil {
		return nil, err
	}
	file := compiled.FindFileByPath(rootFile)
	if file == nil || file.Messages().Len() == 0 {
		return nil, errors.New("it defines no message")
	}
	return &protobufCodec{file, linker.ResolverFromFile(file)}, nil
}

func (c *protobufCodec) encode(dst, value []byte) ([]byte, error) {
	if err := countParts(value); err != nil {
		return nil, err
	}
	message := dynamicpb.NewMessage(c.file.Messages().Get(0))
	if err := (protojson.UnmarshalOptions{Resolver: c.types}).Unmarshal(value, message); err != nil {
		return nil, c.plain(err)
	}
	out, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(append(dst, 0), message)
	if err != nil {
		return nil, c.plain(err)
	}
	return out, nil
}

func (c *protobufCodec) show(dst, payload []byte) ([]byte, error) {
	typ, payload, err := c.indexed(payload)
	if err != nil {
		return dst, err
	}
	if err := c.weigh(typ, payload); err != nil {
		return dst, err
	}
	message := dynamicpb.NewMessage(typ)
	if err := (proto.UnmarshalOptions{Resolver: c.types}).Unmarshal(payload, message); err != nil {
		return dst, c.plain(err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true, Resolver: c.types}.Marshal(message)
	if err != nil {
		return dst, c.plain(err)
	}
	// protojson puts spaces where it likes, so that nobody relies on its bytes; callers do.
	out := bytes.NewBuffer(slices.Grow(dst, len(text)))
	if err := json.Compact(out, text); err != nil {
		return dst, err
	}
	return out.Bytes(), nil
}

// indexed follows the indexes to the type of a message.
func (c *protobufCodec) indexed(payload []byte) (typ protoreflect.MessageDescriptor, rest []byte, err error) {
	next := func() (n int64) {
		n, size := binary.Varint(payload)
		if size <= 0 {
			err = errors.New("the bytes end inside the message indexes")
			return 0
		}
		payload = payload[size:]
		return n
	}
	count := next()
	if count < 0 || count > mostIndexes {
		return nil, nil, fmt.Errorf("%d message indexes", count)
	}
	path := []int64{0}
	if count > 0 {
		path = path[:0]
		for range count {
			path = append(path, next())
		}
	}
	if err != nil {
		return nil, nil, err
	}
	level := c.file.Messages()
	for _, n := range path {
		if n < 0 || n >= int64(level.Len()) {
			return nil, nil, fmt.Errorf("there is no message with the indexes %v", path)
		}
		typ = level.Get(int(n))
		level = typ.Messages()
	}
	return typ, payload, nil
}

// plain takes the library's own name off an error; the space behind it varies on purpose.
func (c *protobufCodec) plain(err error) error {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return errors.New(strings.TrimPrefix(text, "proto: "))
}
