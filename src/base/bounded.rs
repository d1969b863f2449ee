//! A queue with a cap: a push can fail, and what it could not take comes back.

use std::collections::VecDeque;

/// A first-in first-out queue that never holds more than its cap.
#[derive(Debug, Clone)]
pub struct Queue<T> {
    items: VecDeque<T>,
    cap: usize,
}

impl<T> Queue<T> {
    /// An empty queue for at most `cap` items. Nothing is allocated yet.
    pub const fn new(cap: usize) -> Queue<T> {
        Queue { items: VecDeque::new(), cap }
    }

    /// Adds at the end.
    ///
    /// # Errors
    /// The item itself, when the queue is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.items.len() >= self.cap {
            return Err(item);
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_item_back() {
        let mut queue = Queue::new(2);
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((queue.pop(), queue.len(), queue.is_empty()), (Some(1), 1, false));
    }
}
