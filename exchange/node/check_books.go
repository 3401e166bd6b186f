package node

import (
	"fmt"

	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

func checkBooks(_ *check, _ queue.Tx, k *keyReader, b []byte) (string, error) {
	k.str()
	books, err := value[records.Books](b)
	if err == nil && !inBalance(books) {
		return fmt.Sprintf("%d arrived, and the outcomes are %d", books.Arrived, books.Accepted+books.Duplicate+books.Refused+books.Deferred+books.Damaged), nil
	}
	return "", err
}

// checkOutBook holds a link's book against the counts of its lanes, which one View
// shows as of one moment; the counts are held against the entries by checkLane.
func checkOutBook(_ *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	link := k.str()
	book, err := value[records.OutBook](b)
	if err != nil {
		return "", err
	}
	standing, err := outstanding(tx, link)
	if err != nil {
		return "the counts of its lanes cannot be read", nil
	}
	if book.Exported != book.Acked+book.Ended+standing {
		return fmt.Sprintf("%d exported, %d acked, %d ended, and %d are outstanding", book.Exported, book.Acked, book.Ended, standing), nil
	}
	return "", nil
}

// checkFerryBundle counts for checkFerryOut, whose row comes later.
func checkFerryBundle(c *check, _ queue.Tx, k *keyReader, b []byte) (string, error) {
	link := k.str()
	k.num()
	row, err := value[records.FerryBundle](b)
	if err != nil {
		return "", err
	}
	if c.under[link] == nil {
		c.under[link] = new(records.UnderWay)
	}
	countIn(c.under[link], row)
	return "", nil
}

func checkFerryOut(c *check, _ queue.Tx, k *keyReader, b []byte) (string, error) {
	link := k.str()
	row, err := value[records.FerryOut](b)
	if err != nil || !c.o.Still {
		return "", err
	}
	var there records.UnderWay
	if u := c.under[link]; u != nil {
		there = *u
	}
	if row.Under != there {
		return fmt.Sprintf("it counts %+v under way, and there are %+v", row.Under, there), nil
	}
	return "", nil
}
