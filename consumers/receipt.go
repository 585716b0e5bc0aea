package consumers

// Number has the answer wait for a receipt: it goes to the client through another replica, which alone sees the last byte
// go out (rest-api.md 5.5). "" says that there is nothing to wait for. Closed is closed when it is settled or lost.
func (a *Answer) Number() (number string, closed <-chan struct{}) {
	if a.moves == nil {
		return "", nil
	}
	i := a.i
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.waiting == nil {
		i.waiting = map[string]*Answer{}
	}
	a.number = uuid()
	i.waiting[a.number] = a
	return a.number, i.writing
}

// Receipt takes the receipt for an answer that this replica gave. It comes to an instance that is on its way to another
// replica as well: what is handed over waits for it.
func (r *Registry) Receipt(group, id, number string, delivered bool) {
	n := name{group, id}
	var some []*Instance
	r.mu.Lock()
	if i := r.open[n]; i != nil {
		some = append(some, i)
	}
	for i := range r.leaving {
		if i.name == n {
			some = append(some, i)
		}
	}
	r.mu.Unlock()
	for _, i := range some {
		i.confirm(number, delivered)
	}
}

// confirm is the receipt: whether the answer of that number reached the client. One that is not waited for any more says
// nothing.
func (i *Instance) confirm(number string, delivered bool) {
	i.mu.Lock()
	a := i.waiting[number]
	i.mu.Unlock()
	if a != nil {
		a.end(delivered)
	}
}
