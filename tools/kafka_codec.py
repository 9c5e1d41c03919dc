#!/usr/bin/env python3
"""kafka_codec.py - turns the tables of Kafka messages (src/wire/kafka/*.msg, format: README.md there) into C.

    kafka_codec.py --header kafka_msg.h --source kafka_msg.c TABLE...

The header holds a struct per message and per nested struct, typed functions around the generic ones of kafka.c, and KAFKA_APIS(X).
The source holds what those read: for each struct its fields (where, what, in which versions), its default value, and the fewest
bytes that an encoded one has in each version, against which array counts are checked.
"""
import argparse
import re
import sys

SCALARS = {  # type: (C type, bytes on the wire)
    "bool": ("bool", 1), "int8": ("int8_t", 1), "int16": ("int16_t", 2), "uint16": ("uint16_t", 2), "int32": ("int32_t", 4),
    "uint32": ("uint32_t", 4), "int64": ("int64_t", 8), "float64": ("double", 8), "uuid": ("struct kafka_uuid", 16),
}
BLOBS = {"string": 2, "bytes": 4, "records": 4}  # type: bytes of an empty or null one where lengths are not compact
NEVER = 32767  # KAFKA_NEVER: no version is flexible


class TableError(Exception):
    pass


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class Field:
    def __init__(self, name, ctype, array, versions, null, tag, default):
        self.name = snake(name)
        self.type = ctype          # a key of SCALARS or BLOBS, or a Struct
        self.array = array
        self.versions = versions   # (first, last)
        self.null = null           # (first, last), or None: never
        self.tag = tag             # None: an ordinary field
        self.default = default     # text, or None

    def is_struct(self):
        return isinstance(self.type, Struct)


class Struct:
    def __init__(self, cname):
        self.cname = cname  # without "struct"
        self.fields = []


class Message:
    def __init__(self, name, cname, versions, flexible):
        self.name, self.versions, self.flexible = name, versions, flexible
        self.root = Struct(cname)
        self.structs = []  # every Struct, nested before outer, root last
        self.named = {}
        self.out_records = False


class Api:
    def __init__(self, key, name):
        self.key, self.name = key, name
        self.request = self.response = None


# ---- reading the tables ---------------------------------------------------------------------------------------------

class Line:
    def __init__(self, path, number, text):
        self.path, self.number = path, number
        self.indent = len(text) - len(text.lstrip())
        self.words = text.split()

    def fail(self, why):
        raise TableError(f"{self.path}:{self.number}: {why}")


def lines_of(path):
    with open(path, encoding="utf-8") as f:
        for number, text in enumerate(f, 1):
            text = text.split("#", 1)[0].rstrip()
            if text:
                yield Line(path, number, text)


class Block:
    """A line and the lines indented below it."""

    def __init__(self, line):
        self.line = line
        self.inner = []


def blocks_of(path):
    top = Block(None)
    stack = [(-2, top)]
    for line in lines_of(path):
        while line.indent <= stack[-1][0]:
            stack.pop()
        if line.indent != stack[-1][0] + 2:
            line.fail("wrong indentation")
        block = Block(line)
        stack[-1][1].inner.append(block)
        stack.append((line.indent, block))
    return top.inner


def versions_of(word, last):
    m = re.fullmatch(r"(\d+)(\+|-(\d+))?", word)
    if not m:
        return None
    first = int(m[1])
    return first, last if m[2] == "+" else int(m[3]) if m[3] else first


def head_of(line, words):
    """`versions A-B flexible F` at the end of a message's first line."""
    if len(words) != 4 or words[0] != "versions" or words[2] != "flexible":
        line.fail("expected: versions A-B flexible F")
    versions = versions_of(words[1], 0)
    if not versions or versions[0] > versions[1]:
        line.fail("wrong versions")
    return versions, NEVER if words[3] == "none" else int(words[3])


def read_field(message, block, around):
    line = block.line
    words = line.words[:]
    if len(words) < 2:
        line.fail("expected: Field type")
    name, type_name = words[0], words[1]
    words = words[2:]
    last = message.versions[1]
    versions, null, tag, default = around, None, None, None
    if words and versions_of(words[0], last):
        versions = versions_of(words.pop(0), last)
        versions = max(versions[0], around[0]), min(versions[1], around[1])
        if versions[0] > versions[1]:
            line.fail("there is no such version")
    while words:
        word = words.pop(0)
        if word == "null" and null is None:
            null = versions
            if words and versions_of(words[0], last):
                null = versions_of(words.pop(0), last)
                null = max(null[0], versions[0]), min(null[1], versions[1])
        elif word == "tag" and words:
            tag = int(words.pop(0))
        elif word == "=" and words:
            default = words.pop(0)
        else:
            line.fail(f"'{word}' is not understood")
    array = type_name.startswith("[]")
    type_name = type_name[2 if array else 0:]
    ctype = type_name
    if type_name[0].isupper():
        ctype = read_struct(message, block, type_name, versions)
    elif block.inner or type_name not in SCALARS and type_name not in BLOBS:
        line.fail(f"there is no type '{type_name}' with these fields")
    if tag is not None and versions[0] < message.flexible:
        line.fail("a tagged field in a version that is not flexible")
    if default == "null" and null != versions:
        line.fail("null is the default, and not allowed in every version")
    if array and type_name == "records" or null and type_name in SCALARS and not array:
        line.fail("no such array, or no such null")
    return Field(name, ctype, array, versions, null, tag, default)


def read_struct(message, block, name, versions):
    """The struct that a field's type names: one seen before, or that of the fields below."""
    if not block.inner:
        if name not in message.named:
            block.line.fail(f"struct '{name}' has no fields")
        return message.named[name]
    if name in message.named:
        block.line.fail(f"there is a struct '{name}' in this message already")
    struct = Struct(f"{message.root.cname}_{snake(name)}")
    message.named[name] = struct
    read_fields(message, block, struct, versions)
    message.structs.append(struct)
    return struct


def read_fields(message, block, struct, versions):
    for inner in block.inner:
        if inner.line.words[0] == "struct" and struct is message.root and len(inner.line.words) == 2:
            read_struct(message, inner, inner.line.words[1], versions)
        else:
            struct.fields.append(read_field(message, inner, versions))
    names = [f.name for f in struct.fields] + [f.name + "_n" for f in struct.fields if f.array]
    if len(set(names)) != len(names):
        block.line.fail("two fields of one name")
    tags = [f.tag for f in struct.fields if f.tag is not None]
    if len(set(tags)) != len(tags):
        block.line.fail("two fields of one tag")


def read_message(block, name, cname, versions, flexible):
    message = Message(name, cname, versions, flexible)
    read_fields(message, block, message.root, versions)
    message.structs.append(message.root)
    return message


def read_tables(paths):
    apis, records = [], []
    for path in paths:
        for block in blocks_of(path):
            line, words = block.line, block.line.words
            if words[0] == "api" and len(words) == 7:
                versions, flexible = head_of(line, words[3:])
                api = Api(int(words[1]), words[2])
                if [b.line.words for b in block.inner] != [["request"], ["response"]]:
                    line.fail("expected a request and a response")
                name = "kafka_" + snake(api.name)
                api.request = read_message(block.inner[0], api.name + "Request", name + "_req", versions, flexible)
                api.response = read_message(block.inner[1], api.name + "Response", name + "_resp", versions, flexible)
                api.response.out_records = True
                apis.append(api)
            elif words[0] == "record" and len(words) == 6:
                versions, flexible = head_of(line, words[2:])
                records.append(read_message(block, words[1], "kafka_" + snake(words[1]), versions, flexible))
            else:
                line.fail("expected an api or a record")
    apis.sort(key=lambda a: a.key)
    if len({a.key for a in apis}) != len(apis):
        raise TableError("two APIs have one key")
    return apis, records


# ---- what the C code needs to know -------------------------------------------------------------------------------------

def min_bytes(message, struct, version):
    """The fewest bytes of a struct: null or empty where that is possible, no tagged fields."""
    flexible = version >= message.flexible
    n = 1 if flexible else 0
    for f in struct.fields:
        if f.tag is not None or not f.versions[0] <= version <= f.versions[1]:
            continue
        if f.array:
            n += 1 if flexible else 4
        elif f.is_struct():
            may_be_null = f.null and f.null[0] <= version <= f.null[1]
            n += 1 if may_be_null else min_bytes(message, f.type, version)
        elif f.type in BLOBS:
            n += 1 if flexible else BLOBS[f.type]
        else:
            n += SCALARS[f.type][1]
    return n


def check_elements(message):
    """An array's element has at least one byte in every version that has the array: otherwise counts would have no bound."""
    for struct in message.structs:
        for f in struct.fields:
            if f.array and f.is_struct():
                for v in range(f.versions[0], f.versions[1] + 1):
                    if min_bytes(message, f.type, v) == 0:
                        raise TableError(f"{f.type.cname}: nothing in it in version {v}")


def c_type(message, f):
    if f.is_struct():
        base = "struct " + f.type.cname
    elif f.type == "records" and message.out_records:
        base = "struct kafka_records"
    elif f.type in BLOBS:
        base = "struct slice"
    else:
        base = SCALARS[f.type][0]
    return base


def is_pointer(f):
    return f.array or f.is_struct() and f.null is not None


def c_struct(message, struct, out):
    out.append(f"struct {struct.cname} {{")
    for f in struct.fields:
        t = c_type(message, f)
        if is_pointer(f):
            out.append(f"    {t} *{f.name};")
            if f.array:
                out.append(f"    int32_t {f.name}_n;")
        else:
            out.append(f"    {t} {f.name};")
    out.append("};")


def c_default(f, message):
    """The initialiser of a field, or None where zero is right."""
    d = f.default
    if f.array:
        return [f".{f.name}_n = -1"] if d == "null" else []
    if f.is_struct():
        if f.null is not None:
            if d != "null":
                raise TableError(f"{f.name}: a struct that can be null has null as its default")
            return []
        inner = c_defaults(f.type, message)
        return [f".{f.name} = {{{inner}}}"] if inner else []
    if f.type == "string" or f.type == "bytes":
        if d not in (None, "null"):
            raise TableError(f"{f.name}: no such default")
        return [] if d == "null" else [f'.{f.name} = {{"", 0}}']
    if d is None or f.type == "records":
        return []
    if f.type == "bool":
        return [f".{f.name} = {d}"]
    value = int(d, 0)
    limit = {"int8": 7, "int16": 15, "int32": 31, "int64": 63, "uint16": 16, "uint32": 32}[f.type]
    if not -(1 << limit) <= value < 1 << limit:
        raise TableError(f"{f.name}: the default is out of range")
    return [f".{f.name} = " + ("INT32_MIN" if value == -(1 << 31) else f"{value}{'LL' if limit == 63 else ''}")]


def c_defaults(struct, message):
    return ", ".join(x for f in struct.fields for x in c_default(f, message))


def c_kind(message, f):
    if f.is_struct():
        return "STRUCT"
    if f.type == "records":
        return "RECORDS" if message.out_records else "BYTES"
    return f.type.upper()


def c_field(message, struct, f):
    null = f.null or (1, 0)
    of = f"&{f.type.cname}_schema" if f.is_struct() else "NULL"
    return (f"    {{{of}, offsetof(struct {struct.cname}, {f.name}), KAFKA_TYPE_{c_kind(message, f)}, {'true' if f.array else 'false'}, "
            f"{f.versions[0]}, {f.versions[1]}, {null[0]}, {null[1]}, {-1 if f.tag is None else f.tag}}},")


def c_tables(message, struct, out):
    wire = [f for f in struct.fields if f.tag is None]
    tagged = sorted((f for f in struct.fields if f.tag is not None), key=lambda f: f.tag)
    name = struct.cname
    least = [min_bytes(message, struct, v) for v in range(message.versions[0], message.versions[1] + 1)]
    if max(least) > 255:
        raise TableError(f"{name}: more than 255 bytes at least")
    defaults = c_defaults(struct, message)
    out.append(f"static const struct {name} {name}_default = {{{defaults or '0'}}};")
    out.append(f"static const struct kafka_field {name}_fields[] = {{")
    out.extend(c_field(message, struct, f) for f in wire + tagged)
    out.append("};")
    out.append(f"static const uint8_t {name}_least[] = {{{', '.join(map(str, least))}}};")
    out.append(f"const struct kafka_schema {name}_schema = {{")
    out.append(f"    {name}_fields, {len(wire)}, {len(tagged)}, sizeof(struct {name}), &{name}_default, {name}_least,")
    out.append(f"    {message.versions[0]}, {message.versions[1]}, {message.flexible}, \"{message.name}\"}};")
    out.append("")


# ---- the files ---------------------------------------------------------------------------------------------------------

GENERATED = "/* Made by tools/kafka_codec.py from the tables in src/wire/kafka/. Not to be edited. */"


def c_functions(message, struct, out):
    name = struct.cname
    out.append(f"extern const struct kafka_schema {name}_schema;")
    out.append(f"static inline void {name}_init(struct {name} *m) {{ kafka_schema_init(&{name}_schema, m); }}")
    if struct is not message.root:
        return
    out.append(f"static inline WARN_UNUSED enum err {name}_read(struct kafka_reader *r, int16_t version, struct arena *a, struct {name} *out)")
    out.append(f"{{ return kafka_schema_read(&{name}_schema, r, version, a, out); }}")
    out.append(f"static inline void {name}_write(struct kafka_writer *w, int16_t version, const struct {name} *m)")
    out.append(f"{{ kafka_schema_write(&{name}_schema, w, version, m); }}")


def write_header(apis, records, messages):
    out = [GENERATED, "#ifndef KAFKA_MSG_H", "#define KAFKA_MSG_H", "", '#include "kafka.h"', ""]
    out.append("/* X(key, ENUM_NAME, c_name, \"Name\", first version, last version, first flexible version) */")
    out.append("#define KAFKA_APIS(X) \\")
    for a in apis:
        m = a.request
        out.append(f"    X({a.key}, {snake(a.name).upper()}, {snake(a.name)}, \"{a.name}\", {m.versions[0]}, {m.versions[1]}, "
                   f"{'KAFKA_NEVER' if m.flexible == NEVER else m.flexible}) \\")
    out[-1] = out[-1][:-2]
    out.append("")
    out.append("enum kafka_api_key {")
    out.append("#define X(key, NAME, name, text, first, last, flexible) KAFKA_API_##NAME = key,")
    out.append("    KAFKA_APIS(X)")
    out.append("#undef X")
    out.append("};")
    out.append("")
    out.append("/* X(c_name): every record format */")
    out.append("#define KAFKA_RECORDS(X) \\")
    out.extend(f"    X({snake(m.name)}) \\" for m in records)
    out[-1] = out[-1][:-2]
    out.append("")
    for message in messages:
        last = message.versions[1]
        flexible = "never flexible" if message.flexible == NEVER else f"flexible from {message.flexible}"
        out.append(f"/* ---- {message.name}, versions {message.versions[0]} to {last}, {flexible} ---- */")
        out.append("")
        for struct in message.structs:
            c_struct(message, struct, out)
        for struct in message.structs:
            c_functions(message, struct, out)
        out.append("")
    out.append("#endif")
    return "\n".join(out) + "\n"


def write_source(apis, records, messages):
    out = [GENERATED, '#include "kafka.h"', ""]
    for message in messages:
        for struct in message.structs:
            c_tables(message, struct, out)
    out.append("const struct kafka_api kafka_apis[] = {")
    out.append("#define X(key, NAME, name, text, first, last, flexible) \\")
    out.append("    {key, first, last, flexible, text, &kafka_##name##_req_schema, &kafka_##name##_resp_schema},")
    out.append("    KAFKA_APIS(X)")
    out.append("#undef X")
    out.append("};")
    out.append("const size_t kafka_apis_n = COUNT_OF(kafka_apis);")
    out.append("")
    out.append("const struct kafka_schema *const kafka_record_schemas[] = {")
    out.append("#define X(name) &kafka_##name##_schema,")
    out.append("    KAFKA_RECORDS(X)")
    out.append("#undef X")
    out.append("};")
    out.append("const size_t kafka_record_schemas_n = COUNT_OF(kafka_record_schemas);")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--header", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("tables", nargs="+")
    args = parser.parse_args()
    try:
        apis, records = read_tables(args.tables)
        messages = [m for a in apis for m in (a.request, a.response)] + records
        for m in messages:
            check_elements(m)
        texts = {args.header: write_header(apis, records, messages), args.source: write_source(apis, records, messages)}
    except (TableError, ValueError) as e:
        print(f"kafka_codec: {e}", file=sys.stderr)
        return 1
    for path, text in texts.items():
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
