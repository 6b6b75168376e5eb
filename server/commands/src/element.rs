//! Elements of collections, written to a reply.

use carnelian_resp::Writer;
use carnelian_structs::listpack::Element;

/// A bulk string; an element that is kept as an integer is formatted right into the reply.
#[inline]
pub(crate) fn bulk(reply: &mut Writer<'_>, element: Element<'_>) {
    match element {
        Element::String(bytes) => reply.bulk(bytes),
        Element::Integer(number) => reply.bulk_integer(number),
    }
}
