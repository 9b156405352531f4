//! Boxes as steps from other boxes: centre by their sides, sides by logarithm (arXiv 1311.2524 appendix C).

use tch::Tensor;

/// Weights of the four steps, by which they are about as large as their errors matter: x, y, width, height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxCoder(pub [f64; 4]);

/// Natural logarithm of how many times as long as its reference's a side may become: of 1000 ÷ 16.
fn longest() -> f64 {
    (1000.0f64 / 16.0).ln()
}

/// Centre x, centre y, width, height of boxes …×4: a column each.
fn centres(boxes: &Tensor) -> [Tensor; 4] {
    let [left, top, right, bottom] = [0, 1, 2, 3].map(|corner| boxes.narrow(-1, corner, 1));
    let (width, height) = (right - &left, bottom - &top);
    [left + &width * 0.5, top + &height * 0.5, width, height]
}

impl BoxCoder {
    /// Steps R×4 from `references` R×4 to `boxes` R×4, corners both.
    pub fn encode(self, boxes: &Tensor, references: &Tensor) -> Tensor {
        let [to_x, to_y, to_width, to_height] = centres(boxes);
        let [x, y, width, height] = centres(references);
        let [of_x, of_y, of_width, of_height] = self.0;
        let steps = [
            (to_x - x) * of_x / &width,
            (to_y - y) * of_y / &height,
            (to_width / width).log() * of_width,
            (to_height / height).log() * of_height,
        ];
        Tensor::cat(&steps, -1)
    }

    /// Corners …×K×4 that `steps` …×K×4 lead to from `references` …×4.
    pub fn decode(self, steps: &Tensor, references: &Tensor) -> Tensor {
        let [x, y, width, height] = centres(&references.unsqueeze(-2));
        let step = |n: usize| steps.narrow(-1, n as i64, 1) / self.0[n];
        let (to_x, to_y) = (step(0) * &width + x, step(1) * &height + y);
        let half = |step: Tensor, side: &Tensor| step.clamp_max(longest()).exp() * side * 0.5;
        let (across, down) = (half(step(2), &width), half(step(3), &height));
        Tensor::cat(&[&to_x - &across, &to_y - &down, to_x + across, to_y + down], -1)
    }
}
