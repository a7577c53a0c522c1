//! The events of a message that EVENTS holds, in whatever form they came.

use fermata_core::event::{
    Event, EventLimits, Form, MessageHeaders, Rejected, Subject, decode_message, read_form,
};
use fermata_jetstream::StoredMessage;

/// Decodes each event of a message as the listener does, in order.
pub fn for_each_event(
    message: &StoredMessage,
    subject: Subject<'_>,
    mut take: impl FnMut(Result<Event<'_>, Rejected<'_>>),
) {
    let limits = EventLimits::default();
    let headers = message.headers.iter().flat_map(|headers| headers.iter());
    let headers = headers.flat_map(|(name, values)| {
        values.iter().map(move |value| (AsRef::<str>::as_ref(name), value.as_str()))
    });
    let headers = MessageHeaders::new(headers);
    let payload = &message.payload;
    // A request to replay is structured JSON, whatever its headers say.
    if headers.asks_for_replay() {
        return decode_message(None, payload, subject, &limits).into_iter().for_each(take);
    }
    match read_form(&headers, payload, &limits) {
        Form::Json => {
            let decoded = decode_message(headers.content_type(), payload, subject, &limits);
            decoded.into_iter().for_each(take);
        }
        Form::Converted(events) => {
            for (index, converted) in (0..).zip(&events) {
                take(converted.decode(index, payload, subject, &limits));
            }
        }
    }
}
