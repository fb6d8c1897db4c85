//! Batches made ahead on another thread.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// What another thread makes, in its order.
#[derive(Debug)]
pub struct Prefetched<T> {
    made: Option<Receiver<T>>,
    thread: Option<JoinHandle<()>>,
}

/// Lets another thread run through an iterator, at most `ahead` items before they are asked for. It ends when the
/// iterator does, or when this is dropped.
pub fn prefetch<T, I>(ahead: usize, items: I) -> Prefetched<T>
where
    T: Send + 'static,
    I: Iterator<Item = T> + Send + 'static,
{
    let (send, made) = sync_channel(ahead);
    let thread = std::thread::spawn(move || {
        for item in items {
            // The receiver is gone when training stopped early or plans anew.
            if send.send(item).is_err() {
                return;
            }
        }
    });
    Prefetched { made: Some(made), thread: Some(thread) }
}

impl<T> Iterator for Prefetched<T> {
    type Item = T;

    /// A panic of the other thread is one here: its items must not just seem to have ended.
    fn next(&mut self) -> Option<T> {
        let item = self.made.as_ref().and_then(|made| made.recv().ok());
        if item.is_none()
            && let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
        {
            std::panic::resume_unwind(panic);
        }
        item
    }
}

impl<T> Drop for Prefetched<T> {
    /// Waits for the item that is being made, so that nothing is read behind the back of whoever changes it next.
    fn drop(&mut self) {
        self.made = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn items_come_in_order_and_a_few_ahead() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let mut items = prefetch(3, (0..1000).inspect(move |_| _ = count.fetch_add(1, Ordering::SeqCst)));
        assert_eq!((items.next(), items.next()), (Some(0), Some(1)));
        drop(items);
        assert!(made.load(Ordering::SeqCst) <= 7, "{made:?}");
        assert_eq!(prefetch(2, 0..50).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_is_not_an_end() {
        let items = prefetch(1, (0..9).map(|i| if i == 4 { panic!("broken at {i}") } else { i }));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| items.count()));
        assert!(caught.unwrap_err().downcast_ref::<String>().unwrap().contains("broken at 4"));
    }
}
