package main

// mutant is one known way to break the program.
type mutant struct {
	name     string
	reason   string
	changes  []change
	campaign []string // arguments of go test; the first names the package
}

// change replaces text that occurs exactly once in a file.
type change struct{ file, old, new string }

// storm is the simulation, on enough seeds to be sure.
func storm(seeds string) []string {
	return []string{"./test/sim", "-run", "TestPromises", "-seeds", seeds}
}

var mutants = []mutant{
	{
		name:   "ack-before-commit",
		reason: "a submission is acknowledged although its commit may not have happened",
		changes: []change{{"exchange/node/submit.go",
			"return nil, &exchange.Error{Code: exchange.CodeTemporary, Temporary: true, Err: err}",
			"return &Accepted{ID: plan.ID, Header: st.sealed.Hash, Receipt: receipt.cms}, nil"}},
		campaign: storm("400"),
	},
	{
		name:   "ack-item-before-commit",
		reason: "an item is answered with taken before its commit is known",
		changes: []change{{"exchange/node/intake_receipt.go",
			"		return n.homeward(tx, d, env.Sender, receipt.body.Header, receipt.id)\n	})\n	return out, err",
			"		return n.homeward(tx, d, env.Sender, receipt.body.Header, receipt.id)\n	})\n	_ = err\n	return out, nil"}},
		campaign: storm("400"),
	},
	{
		name:   "dedup-outside-transaction",
		reason: "the dedup mark is committed apart from the delivery it guards",
		changes: []change{{"exchange/node/deliver.go",
			"	return n.update(ctx, func(tx queue.Tx) error {\n		mark := &records.Dedup{Stage: row.Stage, Receipt: receipt.id}\n		err := records.Delivered.Insert(tx, mark, p.hh, agency)\n		if errors.Is(err, queue.ErrExists) {\n			return nil\n		}\n		if err != nil {\n			return err\n		}\n",
			"	mark := &records.Dedup{Stage: row.Stage, Receipt: receipt.id}\n	err := n.update(ctx, func(tx queue.Tx) error { return records.Delivered.Insert(tx, mark, p.hh, agency) })\n	if err != nil && !errors.Is(err, queue.ErrExists) {\n		return err\n	}\n	return n.update(ctx, func(tx queue.Tx) error {\n"}},
		campaign: storm("400"),
	},
	{
		name:   "dedup-by-id-alone",
		reason: "a second header under one id passes for a duplicate of the first",
		changes: []change{{"exchange/node/intake.go",
			"	return *first != e.Hash, nil",
			"	_ = first\n	return false, nil"}},
		campaign: storm("400"),
	},
	{
		name:   "blob-not-synced",
		reason: "a part's bytes are not synced before the record that names them is committed",
		changes: []change{{"queue/blob/blob.go",
			"	if err == nil {\n		err = f.Sync()\n	}\n",
			""}},
		campaign: storm("400"),
	},
	{
		name:   "blob-name-not-synced",
		reason: "a blob's directory entry is not synced before its record is committed",
		changes: []change{{"queue/blob/blob.go",
			"if err := s.fs.SyncDir(dir); err != nil {",
			"if err := error(nil); err != nil {\n		_ = dir"}},
		campaign: storm("400"),
	},
	{
		name:   "slots-not-covered",
		reason: "key slots are not compared with what the sender signed for",
		changes: []change{{"crypto/envelope/header.go",
			"len(slot) > maxSlot || sm.Sum(slot) != e.Header.Recipients[i].Slot {",
			"len(slot) > maxSlot {"}},
		campaign: storm("400"),
	},
	{
		name:   "recipients-not-covered",
		reason: "the header's signature is not checked, so anyone may change its recipients",
		changes: []change{{"crypto/envelope/header.go",
			"{ return e.signed.Verify(senderCert) }",
			"{ return nil }"}},
		campaign: storm("400"),
	},
	{
		name:   "receipt-rebuilt",
		reason: "a repeated act signs a new receipt instead of giving the stored bytes",
		changes: []change{{"exchange/node/act.go",
			"	return stored.CMS, nil\n}\n",
			"	return n.rebuilt(stored)\n}\n\nfunc (n *Node) rebuilt(stored *records.Receipt) ([]byte, error) {\n	s, err := openStored(stored)\n	if err != nil {\n		return nil, err\n	}\n	signer, err := n.agencySigner(s.body.Agency)\n	if err != nil {\n		return nil, err\n	}\n	r, err := n.signReceipt(n.Directory(), signer, s.body)\n	if err != nil {\n		return nil, err\n	}\n	return r.cms, nil\n}\n"}},
		campaign: storm("400"),
	},
	{
		name:   "damage-is-refusal",
		reason: "an item damaged on the way is refused for good instead of asked for again",
		changes: []change{{"exchange/node/intake.go",
			"	return Outcome{Damaged, reason}, err\n",
			"	return Outcome{Refused, reason}, err\n"}},
		campaign: storm("1000"),
	},
	{
		name:   "number-reused",
		reason: "a bundle is repacked under the number of one that was lost",
		changes: []change{{"exchange/link/session.go",
			"	s.seq++\n",
			"	s.seq = 1\n"}},
		campaign: storm("400"),
	},
	{
		name:   "lane-left-before-ack",
		reason: "an item leaves its lane although the neighbour called it damaged",
		changes: []change{{"exchange/node/outgoing.go",
			"	return o.Status == Taken || o.Status == Duplicate || o.Status == Postponed\n",
			"	return o.Status != \"\"\n"}},
		campaign: storm("1000"),
	},
}
