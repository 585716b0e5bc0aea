package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Data is a folder that keeps an embedded Kafka and an embedded Redis over restarts:
//
//	format.json  which layout this is
//	lock         held by the process that uses the folder; a killed one lets go of it too
//	kafka/       the log, topics and committed offsets, in the layout of kfake
//	redis.json   the keys of Redis, secrets in it as they are: nobody else may read the folder
//	schemas.json the schemas of the registry
//
// Whatever was acknowledged is in the files by then, so it survives kill -9. The log is not synced to the disk at each
// record, as in Kafka itself: a power cut can take its last seconds. What kfake does not write down at once is the
// deletion of a group or of records by an offset: after kill -9 those are back.
type Data struct {
	dir  string
	lock *os.File
}

const dataFormat = 1

type formatFile struct {
	Format int `json:"format"`
}

// OpenData makes the folder, or checks that it is one of ours, and locks it until Close. Errors name the folder and say
// what to do.
func OpenData(dir string) (*Data, error) {
	if err := ours(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s is in use by another process; stop that one, or choose another folder", dir)
	} else if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	d := &Data{dir: dir, lock: lock}
	if err := d.checkFormat(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// KafkaDir is the folder for KafkaConfig.Dir.
func (d *Data) KafkaDir() string { return filepath.Join(d.dir, "kafka") }

// RedisFile is the file for OpenRedis.
func (d *Data) RedisFile() string { return filepath.Join(d.dir, "redis.json") }

// SchemaFile is the file for OpenRegistry.
func (d *Data) SchemaFile() string { return filepath.Join(d.dir, "schemas.json") }

// Close lets another process use the folder. Kafka, Redis and the registry must have ended.
func (d *Data) Close() error { return d.lock.Close() }

// ours refuses a folder that holds something else, before anything is put into it.
func ours(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	foreign := ""
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "format.json":
			return nil
		case name == "lock" || strings.HasSuffix(name, ".tmp"): // all that a first start leaves that was killed at once
		default:
			foreign = name
		}
	}
	if foreign != "" {
		return fmt.Errorf("%s is not a data folder of sluice dev: it holds %s and no format.json; choose an empty one", dir, foreign)
	}
	return nil
}

func (d *Data) checkFormat() error {
	path := filepath.Join(d.dir, "format.json")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		first, err := json.Marshal(formatFile{Format: dataFormat})
		if err != nil {
			return err
		}
		return replaceFile(path, append(first, '\n'))
	} else if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	return sameFormat(path, raw, dataFormat)
}

// sameFormat looks at nothing but the number: a newer file may have any other shape.
func sameFormat(path string, raw []byte, known int) error {
	var f formatFile
	switch err := json.Unmarshal(raw, &f); {
	case err != nil:
		return fmt.Errorf("%s is damaged: %w", path, err)
	case f.Format > known:
		return fmt.Errorf("%s was written by a newer sluice (format %d, this one knows %d)", path, f.Format, known)
	case f.Format != known:
		return fmt.Errorf("%s has format %d, which this sluice does not know", path, f.Format)
	}
	return nil
}

// lockFile takes the lock without waiting. The kernel gives it back when the process ends, in whatever way.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// replaceFile puts the whole file there or leaves the old one, whenever the process or the machine dies.
func replaceFile(path string, data []byte) error {
	next := path + ".tmp"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
