//! A log that is written record by record, each in a message of its own.

use fermata_audit::{Checkpoint, Tree, commitment, leaf_hash};
use fermata_core::record::Record;
use fermata_jetstream::StreamReader;
use fermata_wire::audit::{AuditFrame, Entry};
use fermata_wire::journal::JournalFrame;

use crate::support::{ENGINE, PARTITION, Stage, signer};

pub struct WrittenLog<'stage> {
    stage: &'stage Stage,
    tree: Tree,
    /// Messages of the journal.
    pub messages: u64,
}

impl<'stage> WrittenLog<'stage> {
    pub fn new(stage: &'stage Stage) -> Self {
        Self { stage, tree: Tree::new(), messages: 0 }
    }

    /// Appends a record and its entry.
    pub async fn record(&mut self, record: &Record) {
        let (number, index) = (self.messages, self.tree.size());
        self.stage.journal(number, index, std::slice::from_ref(record)).await;
        self.messages += 1;
        let reader = StreamReader::new(&self.stage.broker);
        let message = reader.read_one("JOURNAL_0", self.messages).await.unwrap().unwrap();
        let frame = JournalFrame::decode(&message.payload).unwrap();
        let sealed = &frame.records[0];
        let commitment = commitment(sealed.salt, sealed.payload);
        self.entry(sealed.header, &commitment, self.messages).await;
    }

    /// Appends an entry, of a record in the message `journal_sequence`.
    pub async fn entry(&mut self, header: &[u8], commitment: &[u8; 32], journal_sequence: u64) {
        let (index, leaf) = (self.tree.size(), leaf_hash(header, commitment));
        let entry = Entry { index, header, commitment, leaf: leaf.as_bytes() };
        let frame = AuditFrame { journal_sequence, entries: vec![entry] }.encode().unwrap();
        self.stage.append(&fermata_wire::subjects::audit_log(PARTITION), index, frame).await;
        self.tree.extend([leaf]);
    }

    /// Signs it as it is.
    pub async fn sign(&self) {
        let (size, root) = (self.tree.size(), self.tree.root());
        let origin = format!("{ENGINE}/{PARTITION}");
        let note = Checkpoint::new(&origin, size, root, self.messages).unwrap().sign(&signer());
        let subject = fermata_wire::subjects::checkpoints(PARTITION);
        self.stage.append(&subject, 0, note.into_bytes()).await;
    }
}
