//! Messages that wait in memory, and what they cost there.

use std::collections::VecDeque;

use bytes::Bytes;

/// Messages in memory.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) chunks: VecDeque<Bytes>,
    /// With what the memory manager needs for each.
    pub(super) cost: usize,
}

impl Queue {
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.cost += cost(&chunk);
        self.chunks.push_back(chunk);
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.cost -= cost(&chunk);
        if self.chunks.is_empty() {
            // Given back: an idle stream holds no queue.
            self.chunks = VecDeque::new();
        }
        Some(chunk)
    }
}

pub(super) fn cost(chunk: &Bytes) -> usize {
    chunk.len() + OVERHEAD
}

/// What a message costs beyond its bytes: the allocation, its place in the queue.
const OVERHEAD: usize = 96;
