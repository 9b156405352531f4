//! docs/extending.md shows the objective that is compiled and trained here.

#[test]
fn the_guide_shows_the_objective_that_is_tested() {
    let guide = include_str!("../../docs/extending.md");
    let code = include_str!("rotation.rs");
    assert!(
        guide.contains(&format!("```rust\n{code}```\n")),
        "docs/extending.md and tests/parity/rotation.rs differ"
    );
}
