// Package subscriptions keeps what users registered: which topics go to which endpoint, and how. A Subscription is
// immutable once read; every change is a new revision.
//
// The Registry validates and writes, on behalf of httpapi. The Book holds every definition in memory, on behalf of the
// dispatcher. The two meet only in Redis: a write rings a bell, whoever hears it reads that id again, and a resync
// every 30 s makes up for a bell that was lost. So Redis is asked per change, never per record, and without it the
// Book serves on from memory.
//
// # Keys
//
//	sluice:{subs}:doc        hash id -> JSON, the document: schema, revision and all fields
//	sluice:{subs}:rev        hash id -> revision; cheap to read whole
//	sluice:{subs}:gone:<id>  string, the last revision; 7 days: the id was deleted in order and is not used again
//	sluice:bell              channel, {"id","revision","kind":"doc"}: a bell, not the payload
//	sluice:health:<id>       hash replica -> JSON, 1 h: what the owners of its lanes last reported
//
// {subs} is a hash tag, so the scripts that compare the revision and set document and revision touch one slot.
//
// # Deletion
//
// A subscription is first marked "deleting", which every replica hears, and removed when its lanes let go. An id that
// vanishes in any other way (a flush, an eviction, a fail-over) was not deleted by anybody: the Book keeps it and
// counts it, because a lost Redis must never stop a delivery.
//
// # Secrets
//
// A Secret prints as [redacted] in every form. The one exception is the encoding of the store: there is no keyring
// yet, so signing secrets stand in Redis as they are, and whoever can read Redis can sign for every subscription.
package subscriptions
