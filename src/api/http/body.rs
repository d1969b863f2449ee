//! JSON bodies of requests as msgpack, by the shape of what is expected. Never holds a tree of values: text goes in,
//! msgpack comes out, of the order of its size.
//!
//! As Go's decoder reads them: keys without regard to case, unknown ones passed over, `null` for the zero of any kind,
//! the last of equal keys counts, and what follows the value is not looked at. Source: HTTP notes, section 1.1.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::wire::msgpack::{Decoder, Encoder, Msg};

use super::query::go_duration;

/// Values of no fixed shape nest less deep than this.
const MAX_ANY_DEPTH: usize = 32;

/// What a value is expected to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A string.
    Text,
    /// A truth value.
    Bool,
    /// An integer from 0 to 2^64 - 1.
    Unsigned,
    /// A duration: nanoseconds, or Go's words for them.
    Duration,
    /// A time in RFC 3339; Go's binary form comes out.
    Time,
    /// Anything, kept as it is.
    Any,
    /// A list.
    List(&'static Shape),
    /// An object whose keys are the caller's.
    Map(&'static Shape),
    /// An object of these fields.
    Struct(Fields),
}

/// Names and shapes of the fields of an object.
pub(super) type Fields = &'static [(&'static str, Shape)];

/// Reads a request's body.
///
/// # Errors
/// The text of a 400.
pub(super) fn decode<T: Msg>(fields: Fields, body: &[u8]) -> Result<T, String> {
    if body.is_empty() {
        return Err("Request body is empty".to_owned());
    }
    let mut e = Encoder::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    let seed = Seed { shape: Shape::Struct(fields), depth: 0, e: &mut e };
    seed.deserialize(&mut json).map_err(|error| error.to_string())?;
    T::decode(&mut Decoder::new(&e.out).within_own_size()).map_err(|error| error.to_string())
}

/// Reads one value of a shape and writes it.
struct Seed<'e> {
    shape: Shape,
    /// Of values of no fixed shape.
    depth: usize,
    e: &'e mut Encoder,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.shape {
            Shape::Text => "a string",
            Shape::Bool => "true or false",
            Shape::Unsigned => "an unsigned integer",
            Shape::Duration => "a duration, as a string or in nanoseconds",
            Shape::Time => "a time as RFC 3339 writes it",
            Shape::Any => "a value",
            Shape::List(_) => "a list",
            Shape::Map(_) | Shape::Struct(_) => "an object",
        })
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.e.nil();
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.shape {
            Shape::Bool | Shape::Any => self.e.bool(value),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match (self.shape, i64::try_from(value)) {
            (Shape::Unsigned | Shape::Any, _) => self.e.u64(value),
            (Shape::Duration, Ok(nanos)) => self.e.i64(nanos),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Unsigned(value), &self)),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.shape {
            Shape::Duration | Shape::Any => self.e.i64(value),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Signed(value), &self)),
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.shape {
            Shape::Any => self.e.f64(value),
            // Clients without integers write 1.5e10. A saturating cast, of a number that is whole and small enough.
            #[allow(clippy::cast_possible_truncation)]
            Shape::Duration if value.fract() == 0.0 && value.abs() < 9e18 => self.e.i64(value as i64),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Float(value), &self)),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        match self.shape {
            Shape::Text | Shape::Any => self.e.str(value),
            Shape::Duration if value.is_empty() => self.e.i64(0),
            Shape::Duration => match go_duration(value) {
                Some(nanos) => self.e.i64(nanos),
                None => return Err(E::custom(format_args!("time: invalid duration {value:?}"))),
            },
            Shape::Time => match go_time_of(value) {
                Some(bytes) => self.e.bytes(&bytes),
                None => return Err(E::custom(format_args!("{value:?} is no time as RFC 3339 writes it"))),
            },
            _ => return Err(E::invalid_type(serde::de::Unexpected::Str(value), &self)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (shape, depth) = match self.shape {
            Shape::List(element) => (*element, self.depth),
            Shape::Any => (Shape::Any, deeper(self.depth)?),
            _ => return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self)),
        };
        let (mut elements, mut count) = (Encoder::new(), 0);
        while list.next_element_seed(Seed { shape, depth, e: &mut elements })?.is_some() {
            count += 1;
        }
        self.e.array(count);
        self.e.raw(&elements.out);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (each, depth) = match self.shape {
            Shape::Struct(_) => (Shape::Any, self.depth),
            Shape::Map(value) => (*value, self.depth),
            Shape::Any => (Shape::Any, deeper(self.depth)?),
            _ => return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self)),
        };
        let (mut entries, mut count) = (Encoder::new(), 0);
        while let Some(key) = map.next_key::<String>()? {
            let (name, shape) = match self.shape {
                Shape::Struct(fields) => match field(fields, &key) {
                    Some(field) => field,
                    None => {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                },
                _ => (&*key, each),
            };
            entries.str(name);
            map.next_value_seed(Seed { shape, depth, e: &mut entries })?;
            count += 1;
        }
        self.e.map(count);
        self.e.raw(&entries.out);
        Ok(())
    }
}

fn deeper<E: Error>(depth: usize) -> Result<usize, E> {
    if depth < MAX_ANY_DEPTH { Ok(depth + 1) } else { Err(E::custom("nested too deeply")) }
}

/// The field that a key means: its own name before one that differs in case.
fn field(fields: Fields, key: &str) -> Option<(&'static str, Shape)> {
    let exact = fields.iter().find(|(name, _)| *name == key);
    exact.or_else(|| fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))).copied()
}

/// Go's binary form of a time that RFC 3339 writes, in UTC.
pub(super) fn go_time_of(text: &str) -> Option<Vec<u8>> {
    let (date, rest) = text.split_at_checked(10)?;
    let (day_time, rest) = rest.strip_prefix(['T', 't'])?.split_at_checked(8)?;
    let [year, month, day] = numbers(date, "-", [4, 2, 2])?;
    let [hour, minute, second] = numbers(day_time, ":", [2, 2, 2])?;
    let (nanos, zone) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let (digits, zone) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
            let nine = format!("{digits:0<9}");
            (if digits.is_empty() { None } else { nine.get(..9)?.parse::<u32>().ok() }?, zone)
        }
    };
    let offset_minutes = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.strip_prefix('+').is_some() { 1 } else { -1 };
            let [hours, minutes] = numbers(zone.strip_prefix(['+', '-'])?, ":", [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 60 + minutes)
        }
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => 31,
    };
    let valid = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of_month).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    // Days since the first of March of year 0, so that the leap day is the last of its year.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * shifted_year + shifted_year / 4 - shifted_year / 100
        + shifted_year / 400
        + (153 * shifted_month + 2) / 5
        + day
        - 1;
    // The first of January of year 1 is the 306th of them.
    let seconds = (days - 306) * 86_400 + hour * 3_600 + minute * 60 + second - offset_minutes * 60;
    let mut bytes = vec![1];
    bytes.extend(seconds.to_be_bytes());
    bytes.extend(nanos.to_be_bytes());
    bytes.extend([0xff, 0xff]);
    Some(bytes)
}

/// Numbers of so many digits each, with a separator between them and nothing else.
fn numbers<const N: usize>(text: &str, separator: &str, digits: [usize; N]) -> Option<[i64; N]> {
    let mut values = [0; N];
    let mut parts = text.split(separator);
    for (value, digits) in values.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
        *value = part.parse().ok()?;
    }
    if parts.next().is_some() { None } else { Some(values) }
}
