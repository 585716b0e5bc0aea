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

// Confirm is the receipt: whether the answer of that number reached the client. One that is not waited for any more says
// nothing.
func (i *Instance) Confirm(number string, delivered bool) {
	i.mu.Lock()
	a := i.waiting[number]
	i.mu.Unlock()
	if a != nil {
		a.end(delivered)
	}
}
