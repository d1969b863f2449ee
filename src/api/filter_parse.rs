//! Reads filter expressions: text to [`Expr`].
//!
//! **Invariant:** recursion is bounded by [`MAX_FILTER_DEPTH`]; `and` and `or` chains make lists, not depth.

use super::filter::{Expr, MAX_FILTER_BYTES, MAX_FILTER_DEPTH, Op, Pattern};

/// Reads an expression.
///
/// # Errors
/// What is wrong, with the byte (from 1) and what was expected there.
pub(super) fn parse(text: &str) -> Result<Expr, String> {
    if text.len() > MAX_FILTER_BYTES {
        return Err(format!("expression is too long: {} bytes, {MAX_FILTER_BYTES} is the limit", text.len()));
    }
    let mut parser = Parser { text, at: 0, depth: 0 };
    let expr = parser.or()?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.wrong("\"and\", \"or\" or the end"));
    }
    Ok(expr)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// One side of a comparison.
struct Operand {
    /// As a value.
    text: String,
    /// As a selector, when it can be one.
    selector: Option<Vec<String>>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn wrong(&self, expected: &str) -> String {
        format!("1:{} ({}): no match found, expected: {expected}", self.at + 1, self.at)
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes a sign if it is next.
    fn sign(&mut self, sign: &str) -> bool {
        self.space();
        let is = self.rest().starts_with(sign);
        self.at += if is { sign.len() } else { 0 };
        is
    }

    /// Takes a word if it is next and ends there.
    fn word(&mut self, word: &str) -> bool {
        self.space();
        let Some(after) = self.rest().strip_prefix(word) else { return false };
        let is = !after.starts_with(is_name);
        self.at += if is { word.len() } else { 0 };
        is
    }

    fn or(&mut self) -> Result<Expr, String> {
        self.chain("or", Parser::and, Expr::Or)
    }

    fn and(&mut self) -> Result<Expr, String> {
        self.chain("and", Parser::not, Expr::And)
    }

    fn chain(
        &mut self,
        word: &str,
        part: fn(&mut Self) -> Result<Expr, String>,
        whole: fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, String> {
        let first = part(self)?;
        if !self.word(word) {
            return Ok(first);
        }
        let mut parts = vec![first, part(self)?];
        while self.word(word) {
            parts.push(part(self)?);
        }
        Ok(whole(parts))
    }

    fn not(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > MAX_FILTER_DEPTH {
            return Err(format!("expression is nested too deeply: {MAX_FILTER_DEPTH} is the limit"));
        }
        let expr = if self.word("not") {
            Expr::Not(Box::new(self.not()?))
        } else if self.sign("(") {
            let inner = self.or()?;
            if !self.sign(")") {
                return Err(self.wrong("\")\""));
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn comparison(&mut self) -> Result<Expr, String> {
        let left = self.operand()?;
        if self.word("is") {
            let negated = self.word("not");
            if !self.word("empty") {
                return Err(self.wrong("\"empty\""));
            }
            return self.make(left.selector, Op::Empty, negated, String::new());
        }
        for (sign, negated) in [("==", false), ("!=", true)] {
            if self.sign(sign) {
                let right = self.operand()?;
                return self.make(left.selector, Op::Equal, negated, right.text);
            }
        }
        let negated = self.word("not");
        if self.word("in") {
            let right = self.operand()?;
            return self.make(right.selector, Op::In, negated, left.text);
        }
        if self.word("contains") {
            let right = self.operand()?;
            return self.make(left.selector, Op::In, negated, right.text);
        }
        if self.word("matches") {
            let pattern = Pattern::parse(&self.operand()?.text)?;
            let selector = left.selector.ok_or_else(|| self.wrong("a selector"))?;
            return Ok(Expr::Matches { selector, negated, pattern });
        }
        Err(self.wrong("\"==\", \"!=\", \"in\", \"not in\", \"contains\", \"not contains\", \"matches\" or \"is\""))
    }

    fn make(&self, selector: Option<Vec<String>>, op: Op, negated: bool, value: String) -> Result<Expr, String> {
        let selector = selector.ok_or_else(|| self.wrong("a selector"))?;
        Ok(Expr::Match { selector, op, negated, value })
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.space();
        match self.rest().chars().next() {
            Some('"' | '`') => {
                let text = self.string()?;
                let selector = text.strip_prefix('/').map(|path| path.split('/').map(from_pointer).collect());
                Ok(Operand { text, selector })
            }
            Some('-' | '0'..='9') => {
                let len = self.rest().find(|c: char| !matches!(c, '-' | '.' | '0'..='9')).unwrap_or(self.rest().len());
                let text = self.rest()[..len].to_owned();
                self.at += len;
                Ok(Operand { text, selector: None })
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => self.selector(),
            _ => Err(self.wrong("a selector, a number or a string")),
        }
    }

    fn selector(&mut self) -> Result<Operand, String> {
        let begin = self.at;
        let mut parts = vec![self.name()?];
        loop {
            if self.rest().starts_with('.') {
                self.at += 1;
                parts.push(self.name()?);
            } else if self.rest().starts_with('[') {
                self.at += 1;
                self.space();
                parts.push(self.string()?);
                if !self.sign("]") {
                    return Err(self.wrong("\"]\""));
                }
            } else {
                let text = self.text.get(begin..self.at).unwrap_or("").to_owned();
                return Ok(Operand { text, selector: Some(parts) });
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let len = self.rest().find(|c| !is_name(c)).unwrap_or(self.rest().len());
        if len == 0 {
            return Err(self.wrong("a name"));
        }
        let name = self.rest()[..len].to_owned();
        self.at += len;
        Ok(name)
    }

    /// A string: between backquotes as it is, between double quotes with the usual escapes.
    fn string(&mut self) -> Result<String, String> {
        let rest = self.rest();
        let mut text = String::new();
        let mut chars = rest.char_indices();
        let Some((_, quote @ ('"' | '`'))) = chars.next() else { return Err(self.wrong("a string")) };
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.at += at + 1;
                return Ok(text);
            }
            if c != '\\' || quote == '`' {
                text.push(c);
                continue;
            }
            text.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, 't')) => '\t',
                Some((_, 'r')) => '\r',
                Some((_, c @ ('"' | '\\'))) => c,
                _ => return Err(self.wrong("a string with the escapes \\n, \\t, \\r, \\\" and \\\\ only")),
            });
        }
        Err(self.wrong("the end of the string"))
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '/')
}

/// A part of a JSON pointer (RFC 6901).
fn from_pointer(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}
