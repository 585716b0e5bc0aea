package formats

import "testing"

func TestWhatWasUsedLastIsKept(t *testing.T) {
	r := newRecent[string, int](10)
	r.put("a", 1, 4)
	r.put("b", 2, 4)
	if _, ok := r.get("a"); !ok {
		t.Fatal("a is gone")
	}
	r.put("c", 3, 4) // 12: b was used longest ago
	for key, want := range map[string]bool{"a": true, "b": false, "c": true} {
		if _, ok := r.get(key); ok != want {
			t.Errorf("%s: %v", key, ok)
		}
	}
	r.put("a", 9, 1)
	if v, _ := r.get("a"); v != 9 || r.cost != 5 {
		t.Errorf("a is %d, all cost %d", v, r.cost)
	}
	r.put("huge", 4, 100) // alone rather than not at all
	if v, ok := r.get("huge"); !ok || v != 4 || r.order.Len() != 1 || len(r.items) != 1 {
		t.Errorf("%d %v beside %d others", v, ok, r.order.Len()-1)
	}
}
