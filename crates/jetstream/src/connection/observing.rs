//! What the client library tells of a connection, as its users must know it.

use async_nats::{Event, ServerError};
use tokio::sync::{broadcast, watch};

use super::{ConnectionEvent, ConnectionNotice, ConnectionRole, Link};

pub(super) fn observe(
    role: ConnectionRole,
    event: &Event,
    notices: &broadcast::Sender<ConnectionNotice>,
    link: &watch::Sender<Link>,
) {
    link.send_if_modified(|link| advance(link, event));
    if let Some(event) = translate(event) {
        // Nobody listening is fine.
        let _ = notices.send(ConnectionNotice { role, event });
    }
}

/// Moves `link` on by `event` and tells whether it changed.
fn advance(link: &mut Link, event: &Event) -> bool {
    let before = *link;
    match event {
        // Connected while connected: the library's event queue was full and the loss between went unseen.
        Event::Connected if link.connected => link.interruptions += 1,
        Event::Connected => link.connected = true,
        Event::Disconnected | Event::Closed => {
            link.connected = false;
            link.interruptions += 1;
        }
        Event::LameDuckMode
        | Event::Draining
        | Event::SlowConsumer(_)
        | Event::ServerError(_)
        | Event::ClientError(_) => {}
    }
    *link != before
}

fn translate(event: &Event) -> Option<ConnectionEvent> {
    match event {
        Event::Connected => Some(ConnectionEvent::Connected),
        Event::Disconnected => Some(ConnectionEvent::Disconnected),
        Event::Closed => Some(ConnectionEvent::Closed),
        Event::SlowConsumer(subscription) => {
            Some(ConnectionEvent::SlowConsumer { subscription: *subscription })
        }
        Event::ServerError(ServerError::AuthorizationViolation) => {
            Some(ConnectionEvent::PermissionDenied("authorization violation".to_owned()))
        }
        Event::ServerError(ServerError::SlowConsumer(client)) => {
            Some(ConnectionEvent::ServerError(format!(
                "the server calls client {client} a slow consumer"
            )))
        }
        Event::ServerError(ServerError::Other(text))
            if text.to_ascii_lowercase().contains("permissions violation") =>
        {
            Some(ConnectionEvent::PermissionDenied(text.clone()))
        }
        Event::ServerError(ServerError::Other(text)) => {
            Some(ConnectionEvent::ServerError(text.clone()))
        }
        Event::ClientError(error) => Some(ConnectionEvent::ServerError(error.to_string())),
        Event::LameDuckMode => {
            Some(ConnectionEvent::ServerError("the server is about to shut down".to_owned()))
        }
        Event::Draining => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connect_is_no_interruption_and_every_loss_is_one() {
        let mut link = Link::default();

        for event in [Event::Connected, Event::Disconnected, Event::Connected, Event::Disconnected]
        {
            advance(&mut link, &event);
        }

        assert_eq!(link, Link { connected: false, interruptions: 2 });
    }

    #[test]
    fn a_loss_that_went_unseen_is_counted_when_the_connection_comes_up_again() {
        let mut link = Link { connected: true, interruptions: 0 };

        advance(&mut link, &Event::Connected);

        assert_eq!(link.interruptions, 1);
    }

    #[test]
    fn a_refused_subject_is_told_apart_from_other_complaints() {
        let denied = Event::ServerError(ServerError::Other(
            "Permissions Violation for Publish to \"a\"".to_owned(),
        ));

        assert!(matches!(translate(&denied), Some(ConnectionEvent::PermissionDenied(_))));
    }
}
