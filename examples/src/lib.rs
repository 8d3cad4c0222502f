//! What several of the examples have in common.

pub mod events;
pub mod shop;

/// The text in one line, at most `max` characters of it, and none that would play with the terminal.
pub fn tidy(text: &str, max: usize) -> String {
    let text = text.replace(char::is_control, " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(max) {
        Some(_) => text.chars().take(max - 1).chain(['…']).collect(),
        None => text,
    }
}
