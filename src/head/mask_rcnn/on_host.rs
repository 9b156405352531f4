//! From the device to the host, and work there on several pictures at once.

use std::num::NonZero;
use std::thread;

use tch::{Device, Kind, Tensor};

/// A tensor whose last side is N, as rows. The host waits for the device.
pub(super) fn rows_of<const N: usize>(x: &Tensor) -> Vec<[f32; N]> {
    let flat = x.detach().to_kind(Kind::Float).to_device(Device::Cpu).contiguous();
    let mut values = vec![[0f32; N]; flat.numel() / N];
    flat.copy_data(values.as_flattened_mut(), flat.numel());
    values
}

/// `work` for each of `pictures` pictures, in their order, by as many threads as the process may use.
pub(super) fn by_picture<T: Send>(pictures: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(pictures);
    if threads <= 1 {
        return (0..pictures).map(work).collect();
    }
    let each = pictures.div_ceil(threads);
    thread::scope(|scope| {
        let work = &work;
        let of = |first: usize| scope.spawn(move || (first..(first + each).min(pictures)).map(work).collect::<Vec<T>>());
        let started: Vec<_> = (0..pictures).step_by(each).map(of).collect();
        let done = started.into_iter().flat_map(|thread| match thread.join() {
            Ok(some) => some,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.collect()
    })
}
