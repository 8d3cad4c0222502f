//! Failures as messages in Slack.

use examples::tidy;
use inngest_failure::{Dashboard, FailureEvent, HandlerError, State, on_failure};
use serde_json::{Value, json};

use crate::post::{Client, Url};

/// The most that the text of a block may have, by Slack's documentation, in characters.
const MAX_TEXT: usize = 3_000;

/// Tells a channel of failed runs.
///
/// People read it, so it is not told of more than three in a minute: after those, one more each twenty seconds. Slack
/// itself takes one a second.
#[on_failure(function = "*", id = "to-slack", rate_limit = "3/1m", retries = 3, timeout = "10s")]
pub(crate) async fn to_slack(
    failure: FailureEvent,
    State(slack): State<Slack>,
    State(dashboard): State<Dashboard>,
) -> Result<String, HandlerError> {
    slack.client.post("Slack", &slack.webhook, &[], &message(&failure, &dashboard)).await
}

/// An incoming webhook. Who has its URL can post to the channel.
#[derive(Clone)]
pub(crate) struct Slack {
    client: Client,
    webhook: Url,
}

impl Slack {
    pub(crate) fn new(client: Client, webhook: Url) -> Self {
        Self { client, webhook }
    }
}

/// What an incoming webhook takes: the text for notifications, the blocks for the channel.
fn message(failure: &FailureEvent, dashboard: &Dashboard) -> Value {
    let error = failure.error();
    let title = tidy(&format!("{} failed", failure.function_id()), 150);
    // Three backticks would end the preformatted text.
    let report = escaped(&error.report().replace("```", "'''"), MAX_TEXT - 6);
    let mut blocks = vec![
        json!({ "type": "header", "text": { "type": "plain_text", "text": title } }),
        json!({ "type": "section", "text": { "type": "mrkdwn", "text": format!("```{report}```") } }),
    ];
    // An id that is no run's may be of any length, and half a link leads nowhere.
    let link = format!("<{}|Look at the run>", escaped(&failure.run_url(dashboard), usize::MAX));
    if link.len() <= MAX_TEXT {
        blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": link } }));
    }
    json!({
        "text": escaped(&tidy(&format!("{title}: {}", error.message), 300), MAX_TEXT),
        "blocks": blocks,
    })
}

/// The text as mrkdwn shows it, in which nobody is mentioned and nothing is a link; no longer than `max` bytes as it is
/// sent.
fn escaped(text: &str, max: usize) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        let mut buffer = [0; 4];
        let char = match char {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            char => &*char.encode_utf8(&mut buffer),
        };
        if escaped.len() + char.len() + '…'.len_utf8() > max {
            return escaped + "…";
        }
        escaped += char;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(function_id: &str, run_id: &str, message: &str) -> Value {
        let event = json!({ "name": "inngest/function.failed", "data": {
            "function_id": function_id, "run_id": run_id, "error": { "message": message },
        } });
        super::message(&FailureEvent::try_from(event).unwrap(), &Dashboard::dev())
    }

    #[test]
    fn nothing_in_a_message_is_markup() {
        let message = of("shop-checkout", "r1>|<!here>", "<!channel> a && b ``` <http://x|y>");
        let blocks = &message["blocks"];
        let escaped = "&lt;!channel&gt; a &amp;&amp; b";
        assert_eq!(
            message["text"],
            format!("shop-checkout failed: {escaped} ``` &lt;http://x|y&gt;")
        );
        assert_eq!(blocks[0]["text"]["text"], "shop-checkout failed");
        assert_eq!(
            blocks[1]["text"]["text"],
            format!("```Error: {escaped} ''' &lt;http://x|y&gt;```")
        );
        assert_eq!(
            blocks[2]["text"]["text"],
            "<http://localhost:8288/run?runID=r1%3E%7C%3C%21here%3E|Look at the run>"
        );
    }

    #[test]
    fn no_text_is_longer_than_slack_takes() {
        let message = of(&"f".repeat(1_000), &"r".repeat(10_000), &"<&>".repeat(10_000));
        let blocks = message["blocks"].as_array().unwrap();
        assert_eq!(blocks.len(), 2);
        let text = |i: usize| blocks[i]["text"]["text"].as_str().unwrap();
        assert!(text(0).chars().count() <= 150);
        assert!(text(1).len() <= 3_000 && text(1).ends_with("…```"), "{}", text(1));
        assert!(message["text"].as_str().unwrap().len() <= 3_000);
    }
}
