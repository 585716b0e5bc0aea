package sandbox

import (
	"math/big"
	"strconv"
	"testing"
	"time"
)

// kfake makes nanoseconds of these numbers without a look at their size: one that overflows cleans everything up at
// once.
func TestForeverFitsIntoADuration(t *testing.T) {
	for name, unit := range map[string]time.Duration{"log.cleaner.backoff.ms": time.Millisecond, "offsets.retention.minutes": time.Minute} {
		n, err := strconv.ParseInt(keepAll[name], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		exact := new(big.Int).Mul(big.NewInt(n), big.NewInt(int64(unit)))
		if !exact.IsInt64() || time.Duration(exact.Int64()) < 50*365*24*time.Hour {
			t.Errorf("%s = %d is %s ns", name, n, exact)
		}
	}
}
