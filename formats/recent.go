package formats

import (
	"container/list"
	"sync"
)

// recent keeps what was used last, up to a cost in bytes: schemas never change, so nothing in it grows old.
type recent[K comparable, V any] struct {
	mu    sync.Mutex
	most  int
	cost  int
	order list.List // of *kept, last used first
	items map[K]*list.Element
}

type kept[K comparable, V any] struct {
	key   K
	value V
	cost  int
}

func newRecent[K comparable, V any](mostBytes int) *recent[K, V] {
	return &recent[K, V]{most: mostBytes, items: map[K]*list.Element{}}
}

func (r *recent[K, V]) get(key K) (v V, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.items[key]
	if !ok {
		return v, false
	}
	r.order.MoveToFront(at)
	return at.Value.(*kept[K, V]).value, true
}

func (r *recent[K, V]) put(key K, value V, cost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, taken := r.items[key]; taken {
		r.drop(at)
	}
	r.items[key] = r.order.PushFront(&kept[K, V]{key, value, cost})
	for r.cost += cost; r.cost > r.most && r.order.Len() > 1; {
		r.drop(r.order.Back())
	}
}

func (r *recent[K, V]) drop(at *list.Element) {
	k := r.order.Remove(at).(*kept[K, V])
	delete(r.items, k.key)
	r.cost -= k.cost
}
