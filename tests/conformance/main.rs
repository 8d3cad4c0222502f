//! Recorded failures of a real Inngest server, and the other shapes that it is known to send, through
//! the public API.

mod dispatch;
mod errors;
mod triggers;
