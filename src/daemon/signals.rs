//! Unix signals as events.

use std::sync::mpsc::Sender;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::events::{Event, Notice};

/// Subscribes on the runtime; from its return on, none of these signals has its default effect.
///
/// # Errors
/// The kernel refuses a handler.
pub(super) fn subscribe(runtime: &Runtime, events: &Sender<Event>) -> std::io::Result<()> {
    let _inside = runtime.enter();
    let wanted = [
        (SignalKind::hangup(), Notice::Hangup),
        (SignalKind::terminate(), Notice::Terminate),
        (SignalKind::interrupt(), Notice::Terminate),
        (SignalKind::user_defined1(), Notice::Checkpoint),
    ];
    for (kind, notice) in wanted {
        let mut stream = signal(kind)?;
        let events = events.clone();
        runtime.spawn(async move {
            while stream.recv().await.is_some() {
                if events.send(Event::Notice(notice)).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}
