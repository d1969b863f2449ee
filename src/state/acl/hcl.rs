//! Text to a tree: the part of HCL 1 that policies are written in, and JSON of the same meaning.
//!
//! Blocks with labels, attributes, strings with escapes, heredocs, lists, numbers, truth values and comments. Knows
//! nothing of what the words mean. A pure function of the text; an error says where in it. Source: the HCL 1 syntax
//! notes of its README, RFC 8259.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Bytes of a text at most.
pub(super) const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// Blocks and lists may nest this deep.
pub(super) const MAX_NESTING: usize = 32;

/// Any value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A string, a heredoc, or a number as it was written: policies have no use for numbers.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// JSON's null.
    Null,
    /// A list.
    List(Vec<Value>),
    /// A block, or an object.
    Object(Vec<Item>),
}

/// A block or an attribute: its name, a block's labels, and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// The name, and a block's labels after it.
    pub(super) keys: Vec<String>,
    /// True when it was written as a block, so that it can have no labels but those in `keys`.
    pub(super) is_block: bool,
    /// What it holds; an object if it is a block.
    pub(super) value: Value,
}

/// Reads a text: JSON when it begins with `{`, else HCL.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn read(text: &str) -> Result<Vec<Item>, String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("the text is longer than {MAX_TEXT_BYTES} bytes"));
    }
    if text.trim_start().starts_with('{') {
        return read_json(text);
    }
    let mut parser = Parser { text, pos: 0 };
    let items = parser.items(None, 0)?;
    Ok(items)
}

/// Reads HCL at a place in the text.
struct Parser<'a> {
    text: &'a str,
    pos: usize,
}

type Parsed<T> = Result<T, String>;

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.pos += next.len_utf8();
        Some(next)
    }

    /// Passes over `text` if it comes next.
    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.pos += text.len();
        }
        found
    }

    fn error<T>(&self, what: impl fmt::Display) -> Parsed<T> {
        let before = self.text.get(..self.pos).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        Err(format!("At {line}:{column}: {what}"))
    }

    /// Passes over white space and comments.
    fn skip_blank(&mut self) -> Parsed<()> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{feff}']).len();
            self.pos += blank;
            let rest = self.rest();
            if rest.starts_with('#') || rest.starts_with("//") {
                self.pos += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                match rest.find("*/") {
                    Some(end) => self.pos += end + 2,
                    None => return self.error("comment not terminated"),
                }
            } else if blank == 0 {
                return Ok(());
            }
        }
    }

    /// Blocks and attributes, up to `end` or the end of the text.
    fn items(&mut self, end: Option<char>, depth: usize) -> Parsed<Vec<Item>> {
        if depth > MAX_NESTING {
            return self.error(format_args!("nested more than {MAX_NESTING} deep"));
        }
        let mut items = Vec::new();
        loop {
            self.skip_blank()?;
            match self.peek() {
                None if end.is_none() => return Ok(items),
                None => return self.error("object expected closing RBRACE got: EOF"),
                found if found == end => {
                    self.bump();
                    return Ok(items);
                }
                Some(_) => items.push(self.item(depth)?),
            }
            self.skip_blank()?;
            // Items of an object may be parted by commas.
            if end.is_some() {
                self.eat(",");
            }
        }
    }

    fn item(&mut self, depth: usize) -> Parsed<Item> {
        let mut keys = Vec::new();
        loop {
            self.skip_blank()?;
            match self.peek() {
                Some('=') if !keys.is_empty() => {
                    self.bump();
                    if keys.len() > 1 {
                        return self.error("nested object expected: LBRACE got: ASSIGN");
                    }
                    return Ok(Item { keys, is_block: false, value: self.value(depth)? });
                }
                Some('{') if !keys.is_empty() => {
                    self.bump();
                    let value = Value::Object(self.items(Some('}'), depth + 1)?);
                    return Ok(Item { keys, is_block: true, value });
                }
                Some('"') => keys.push(self.string()?),
                Some(letter) if letter.is_alphabetic() || letter == '_' => keys.push(self.word().to_owned()),
                Some(other) if keys.is_empty() => {
                    return self.error(format_args!("expected: IDENT | STRING got: {other:?}"));
                }
                Some(other) => {
                    return self.error(format_args!("expected: IDENT | STRING | ASSIGN | LBRACE got: {other:?}"));
                }
                None => return self.error("expected: IDENT | STRING | ASSIGN | LBRACE got: EOF"),
            }
        }
    }

    /// An identifier, or a number: letters, digits, and what else they may have in them.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let len =
            rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.' | '+')).unwrap_or(rest.len());
        self.pos += len;
        rest.get(..len).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Parsed<Value> {
        self.skip_blank()?;
        match self.peek() {
            Some('"') => Ok(Value::Text(self.string()?)),
            Some('<') => Ok(Value::Text(self.heredoc()?)),
            Some('[') => {
                self.bump();
                Ok(Value::List(self.list(depth + 1)?))
            }
            Some('{') => {
                self.bump();
                Ok(Value::Object(self.items(Some('}'), depth + 1)?))
            }
            Some(first) if first.is_ascii_digit() || first == '-' => self.number(),
            _ => {
                let at = self.pos;
                match self.word() {
                    "true" => Ok(Value::Bool(true)),
                    "false" => Ok(Value::Bool(false)),
                    _ => {
                        self.pos = at;
                        self.error("Unknown token: a value is expected")
                    }
                }
            }
        }
    }

    /// A number, kept as it was written.
    fn number(&mut self) -> Parsed<Value> {
        let at = self.pos;
        let number = self.word();
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_hex = |hex: &str| !hex.is_empty() && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
        let is_number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            Some(hex) => is_hex(hex),
            None => digits.starts_with(|c: char| c.is_ascii_digit()) && digits.parse::<f64>().is_ok(),
        };
        if is_number {
            return Ok(Value::Text(number.to_owned()));
        }
        self.pos = at;
        self.error(format_args!("{number:?} is no number"))
    }

    fn list(&mut self, depth: usize) -> Parsed<Vec<Value>> {
        if depth > MAX_NESTING {
            return self.error(format_args!("nested more than {MAX_NESTING} deep"));
        }
        let mut values = Vec::new();
        loop {
            self.skip_blank()?;
            if self.eat("]") {
                return Ok(values);
            }
            values.push(self.value(depth)?);
            self.skip_blank()?;
            if !self.eat(",") && self.peek() != Some(']') {
                return self.error("error parsing list, expected comma or list end");
            }
        }
    }

    /// A string in quotes.
    fn string(&mut self) -> Parsed<String> {
        let at = self.pos;
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                Some('"') => return Ok(text),
                Some('\\') => match self.escape() {
                    Some(escaped) => text.push(escaped),
                    None => return self.error("illegal char escape"),
                },
                Some('\n') | None => {
                    self.pos = at;
                    return self.error("literal not terminated");
                }
                Some(other) => text.push(other),
            }
        }
    }

    /// What an escape stands for; the backslash is read.
    fn escape(&mut self) -> Option<char> {
        match self.bump()? {
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            same @ ('"' | '\\') => Some(same),
            'x' => self.code(2),
            'u' => self.code(4),
            'U' => self.code(8),
            _ => None,
        }
    }

    /// A character by as many hexadecimal digits.
    fn code(&mut self, digits: usize) -> Option<char> {
        let code = self.rest().get(..digits).filter(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        self.pos += digits;
        char::from_u32(u32::from_str_radix(code, 16).ok()?)
    }

    /// `<<NAME` and lines up to one that is NAME. After `<<-` the lines lose the indentation of the last.
    fn heredoc(&mut self) -> Parsed<String> {
        let at = self.pos;
        if !self.eat("<<") {
            return self.error("Unknown token: a value is expected");
        }
        let indented = self.eat("-");
        let name = self.word();
        if name.is_empty() || !(self.eat("\n") || self.eat("\r\n")) {
            return self.error("heredoc anchor and a new line are expected");
        }
        let mut lines = Vec::new();
        loop {
            let rest = self.rest();
            let line = rest.split_inclusive('\n').next().unwrap_or_default();
            if line.trim() == name {
                // The line's end stays, for whoever counts lines.
                let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
                self.pos += line.trim_end_matches(['\r', '\n']).len();
                let cut = if indented { common_indent(&lines, indent) } else { 0 };
                return Ok(lines.iter().map(|line: &&str| line.get(cut..).unwrap_or_default()).collect());
            }
            if line.is_empty() {
                self.pos = at;
                return self.error("heredoc not terminated");
            }
            lines.push(line);
            self.pos += line.len();
        }
    }
}

/// How many bytes each line is to lose: as the last line has, if all have as many.
fn common_indent(lines: &[&str], last: usize) -> usize {
    let has = |line: &&str| line.bytes().take(last).filter(|byte| matches!(byte, b' ' | b'\t')).count() == last;
    if lines.iter().all(has) { last } else { 0 }
}

fn read_json(text: &str) -> Parsed<Vec<Item>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Tree { depth: 0 }.deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| error.to_string())?;
    match value {
        Value::Object(items) => Ok(items),
        _ => Err("root should be an object".to_owned()),
    }
}

/// Reads a JSON value with all the keys of its objects, in their order, also those that come twice.
#[derive(Clone, Copy)]
struct Tree {
    depth: usize,
}

impl Tree {
    fn deeper<E: serde::de::Error>(self) -> Result<Tree, E> {
        if self.depth > MAX_NESTING {
            return Err(E::custom(format_args!("nested more than {MAX_NESTING} deep")));
        }
        Ok(Tree { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            items.push(Item { keys: vec![key], is_block: false, value: map.next_value_seed(inner)? });
        }
        Ok(Value::Object(items))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
