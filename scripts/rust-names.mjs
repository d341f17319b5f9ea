// What a function is called, out of the symbol that Rust's compiler gives it: in the older form (`_ZN…E`) or in the one
// that newer compilers use (`_R…`, "v0": https://doc.rust-lang.org/rustc/symbol-mangling/v0.html). A closure has the name
// of the function that it stands in, a function with type arguments its own. Empty where the symbol is of neither form.

export function ownName(symbol) {
  try {
    if (symbol.startsWith("_ZN")) return older(symbol);
    if (symbol.startsWith("_R")) return new Newer(symbol).name();
  } catch (error) {
    if (!(error instanceof Unclear)) throw error;
  }
  return "";
}

class Unclear extends Error {}

/** Each part of the path with its length, a hash as the last one. */
function older(symbol) {
  const parts = [];
  let at = 3;
  while (symbol[at] !== "E") {
    const length = /^\d+/.exec(symbol.slice(at, at + 9))?.[0];
    if (!length) throw new Unclear();
    at += length.length;
    parts.push(symbol.slice(at, at + Number(length)));
    at += Number(length);
    if (at >= symbol.length) throw new Unclear();
  }
  const named = parts.filter((part) => part !== "_$u7b$$u7b$closure$u7d$$u7d$" && !/^h[0-9a-f]{16}$/.test(part));
  return named.at(-1) ?? "";
}

/** Walks over a symbol by its grammar. Only names of the outermost path are looked at; everything else is passed over. */
class Newer {
  constructor(symbol) {
    this.symbol = symbol;
    this.at = 2;
  }

  name() {
    this.decimal();
    return this.path();
  }

  /** Passes over a path; its last name, and where that is a closure's, the one around it. */
  path() {
    switch (this.next()) {
      case "C":
        return this.identifier();
      case "M":
        this.disambiguator();
        this.path();
        this.type();
        return "";
      case "X":
        this.disambiguator();
        this.path();
        this.type();
        this.path();
        return "";
      case "Y":
        this.type();
        this.path();
        return "";
      case "N": {
        this.next();
        const around = this.path();
        return this.identifier() || around;
      }
      case "I": {
        const name = this.path();
        while (!this.eats("E")) this.argument();
        return name;
      }
      case "B":
        this.number();
        return "";
      default:
        throw new Unclear();
    }
  }

  argument() {
    if (this.eats("L")) this.number();
    else if (this.eats("K")) this.constant();
    else this.type();
  }

  type() {
    const kind = this.peek();
    if (/[a-z]/.test(kind)) return void this.next();
    if ("CMXYNI".includes(kind)) return void this.path();
    this.next();
    switch (kind) {
      case "A":
        this.type();
        return this.constant();
      case "S":
      case "P":
      case "O":
        return this.type();
      case "T":
        while (!this.eats("E")) this.type();
        return;
      case "R":
      case "Q":
        if (this.eats("L")) this.number();
        return this.type();
      case "F":
        return this.signature();
      case "D":
        this.binder();
        while (!this.eats("E")) this.trait();
        this.expect("L");
        return this.number();
      case "B":
        return this.number();
      case "W":
        // A type with a pattern: a range, or several.
        this.type();
        return this.pattern();
      default:
        throw new Unclear();
    }
  }

  pattern() {
    switch (this.next()) {
      case "R":
        this.constant();
        return this.constant();
      case "O":
        while (!this.eats("E")) this.pattern();
        return;
      case "N":
        return;
      default:
        throw new Unclear();
    }
  }

  signature() {
    this.binder();
    this.eats("U");
    if (this.eats("K") && !this.eats("C")) this.plainIdentifier();
    while (!this.eats("E")) this.type();
    this.type();
  }

  trait() {
    this.path();
    while (this.eats("p")) {
      this.plainIdentifier();
      this.type();
    }
  }

  constant() {
    if (this.eats("p")) return;
    if (this.eats("B")) return void this.number();
    const kind = this.next();
    switch (kind) {
      case "A":
      case "T":
        while (!this.eats("E")) this.constant();
        return;
      case "R":
      case "Q":
        return this.constant();
      case "V":
        return this.variant();
      default:
        // A number, a truth value, a letter, or the bytes of a string: hexadecimal.
        if (!/[a-z]/.test(kind)) throw new Unclear();
        this.eats("n");
        while (this.peek() !== "_") this.next();
        this.next();
    }
  }

  variant() {
    switch (this.next()) {
      case "U":
        return void this.path();
      case "T":
        this.path();
        while (!this.eats("E")) this.constant();
        return;
      case "S":
        this.path();
        while (!this.eats("E")) {
          this.identifier();
          this.constant();
        }
        return;
      default:
        throw new Unclear();
    }
  }

  binder() {
    if (this.eats("G")) this.number();
  }

  disambiguator() {
    if (this.eats("s")) this.number();
  }

  identifier() {
    this.disambiguator();
    return this.plainIdentifier();
  }

  plainIdentifier() {
    this.eats("u");
    const length = Number(this.decimal());
    // Parts a name that begins with a digit from its length.
    this.eats("_");
    this.at += length;
    if (this.at > this.symbol.length) throw new Unclear();
    return this.symbol.slice(this.at - length, this.at);
  }

  decimal() {
    const found = /^\d*/.exec(this.symbol.slice(this.at, this.at + 9))[0];
    this.at += found.length;
    return found;
  }

  /** In base 62; what it says is nobody's business here. */
  number() {
    while (this.peek() !== "_") this.next();
    this.next();
  }

  peek() {
    if (this.at >= this.symbol.length) throw new Unclear();
    return this.symbol[this.at];
  }

  next() {
    const letter = this.peek();
    this.at++;
    return letter;
  }

  eats(letter) {
    const there = this.symbol[this.at] === letter;
    if (there) this.at++;
    return there;
  }

  expect(letter) {
    if (!this.eats(letter)) throw new Unclear();
  }
}
