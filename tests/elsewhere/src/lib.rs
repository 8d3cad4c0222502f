//! A crate whose only content is a handler: whether it takes part depends on the linker alone.
//!
//! It has the runtime crate under another name.

use failures::on_failure;

/// Handles a failure from another crate.
#[on_failure(function = "elsewhere", app = "shop", crate = failures)]
pub async fn handler_elsewhere() {}
