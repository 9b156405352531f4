//! Who was the first not to be finite: a list of tensors by name in the order in which a pass makes them. Kept on demand only; otherwise a look
//! costs a read of a flag of the thread.

use std::cell::RefCell;

use tch::{Kind, Tensor};

thread_local! {
    static SEEN: RefCell<Option<Vec<Look>>> = const { RefCell::new(None) };
}

/// Whether all values are numbers; whole numbers always are. The host waits for the device.
#[must_use]
pub fn is_finite(t: &Tensor) -> bool {
    !t.is_floating_point() || t.isfinite().all().int64_value(&[]) != 0
}

/// One tensor of a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Its name, such as `blocks.3`.
    pub name: String,
    /// Elements that are NaN or infinite.
    pub nonfinite: i64,
    /// Elements.
    pub elements: i64,
    /// Largest absolute value among the finite ones.
    pub largest: f64,
}

impl Look {
    /// Looks at a tensor; the host waits for the device.
    #[must_use]
    pub fn at(name: impl Into<String>, t: &Tensor) -> Self {
        tch::no_grad(|| {
            let t = t.detach().to_kind(Kind::Float);
            let elements = t.numel() as i64;
            let nonfinite = elements - t.isfinite().sum(Kind::Int64).int64_value(&[]);
            let largest = if elements == 0 {
                0.0
            } else {
                t.nan_to_num(0.0, 0.0, 0.0).abs().max().double_value(&[])
            };
            Self {
                name: name.into(),
                nonfinite,
                elements,
                largest,
            }
        })
    }
}

/// Runs `pass` and answers what it made, with all tensors that were looked at on the way.
pub fn watched<T>(pass: impl FnOnce() -> T) -> (T, Vec<Look>) {
    let before = SEEN.replace(Some(Vec::new()));
    let made = pass();
    (made, SEEN.replace(before).unwrap_or_default())
}

/// Notes a tensor, if somebody watches.
pub fn look(name: impl FnOnce() -> String, t: &Tensor) {
    let watching = SEEN.with_borrow(Option::is_some);
    if watching {
        let look = Look::at(name(), t);
        SEEN.with_borrow_mut(|seen| {
            if let Some(seen) = seen {
                seen.push(look);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_kept_in_order_and_only_on_demand() {
        let bad = Tensor::from_slice(&[1f32, f32::NAN, f32::INFINITY, -3.0]);
        look(|| unreachable!("nobody watches"), &bad);
        let (made, seen) = watched(|| {
            look(|| "a".into(), &Tensor::from_slice(&[2f32]));
            look(|| "b".into(), &bad);
            7
        });
        assert_eq!(made, 7);
        let short: Vec<_> = seen.iter().map(|l| (l.name.as_str(), l.nonfinite, l.largest)).collect();
        assert_eq!(short, [("a", 0, 2.0), ("b", 2, 3.0)]);
    }
}
