/* Turns libyaml's events into nodes, without recursion: the open sequences and mappings are a stack of bounded depth. */
#include <string.h>
#include <yaml.h>

#include "config/yaml_node.h"
#include "platform/text.h"

typedef struct Builder {
  NitiYamlDocument *document;
  const char *origin;
  bool place;
  NitiYaml *open[NITI_YAML_DEPTH_MAX]; /* the sequences and mappings around the next node */
  NitiYaml *key[NITI_YAML_DEPTH_MAX];  /* of each open mapping: the key awaiting its value */
  size_t depth, nodes;
  NitiYaml *root;
} Builder;

static NitiStatus fail_at(const Builder *builder, size_t line, size_t column, const char *text) {
  if (!builder->place) return niti_fail(NITI_ERROR_ARGUMENT, "%s: %s", builder->origin, text);
  return niti_fail(NITI_ERROR_FORMAT, "%s:%zu:%zu: %s", builder->origin, line + 1, column + 1, text);
}

/* Reports libyaml's error. */
static NitiStatus fail_parser(const Builder *builder, const yaml_parser_t *parser, const char *text) {
  char message[256];
  const char *problem = parser->problem ? parser->problem : "malformed YAML";
  if (parser->error == YAML_MEMORY_ERROR) return niti_yaml_no_memory(builder->origin);
  if (parser->error == YAML_READER_ERROR) {
    size_t line = 0, start = 0;
    for (size_t i = 0; i < parser->problem_offset; ++i) {
      if (text[i] == '\n') {
        ++line;
        start = i + 1;
      }
    }
    (void)snprintf(message, sizeof message, "not plain UTF-8 text: %s", problem);
    return fail_at(builder, line, parser->problem_offset - start, message);
  }
  if (parser->context) {
    (void)snprintf(message, sizeof message, "malformed YAML: %s, %s that begins at line %zu", problem, parser->context,
                   parser->context_mark.line + 1);
  } else {
    (void)snprintf(message, sizeof message, "malformed YAML: %s", problem);
  }
  return fail_at(builder, parser->problem_mark.line, parser->problem_mark.column, message);
}

/* A key: a word, new in its mapping. */
static NitiStatus check_key(const NitiYaml *mapping, const NitiYaml *key) {
  char found[NITI_YAML_FOUND_MAX];
  if (key->kind != NITI_YAML_SCALAR) {
    return niti_yaml_fail(key, "expected a word as key, found %s", niti_yaml_found(found, key));
  }
  for (size_t i = 0; i < mapping->count; ++i) {
    if (strcmp(mapping->keys[i]->text, key->text) != 0) continue;
    if (mapping->keys[i]->line == 0) return niti_yaml_fail(key, "duplicate key %s", niti_yaml_found(found, key));
    return niti_yaml_fail(key, "duplicate key %s (first at line %d)", niti_yaml_found(found, key), mapping->keys[i]->line);
  }
  if (mapping->count == NITI_YAML_KEYS_MAX) {
    return niti_yaml_fail(key, "a mapping has more than %d keys", NITI_YAML_KEYS_MAX);
  }
  return NITI_OK;
}

/* Adds a node to the innermost open sequence or mapping. */
static NitiStatus attach(Builder *builder, NitiYaml *node) {
  if (builder->depth == 0) {
    builder->root = node;
    return NITI_OK;
  }
  NitiYaml *parent = builder->open[builder->depth - 1], **key = &builder->key[builder->depth - 1];
  if (parent->kind == NITI_YAML_MAPPING && !*key) {
    NITI_TRY(check_key(parent, node));
    *key = node;
    return NITI_OK;
  }
  if (!niti_yaml_push(builder->document, parent, *key, node)) return niti_yaml_no_memory(builder->origin);
  *key = NULL;
  return NITI_OK;
}

static NitiStatus add(Builder *builder, const yaml_event_t *event, NitiYamlKind kind, const yaml_char_t *anchor,
                      const yaml_char_t *tag) {
  const size_t line = event->start_mark.line, column = event->start_mark.column;
  if (anchor) return fail_at(builder, line, column, "anchors (&) are not supported");
  if (tag) return fail_at(builder, line, column, "tags (!) are not supported");
  if (++builder->nodes > NITI_YAML_NODES_MAX) return fail_at(builder, line, column, "more than 65536 values");
  NitiYaml *node = niti_yaml_node(builder->document, kind, builder->origin, builder->place ? (int)line + 1 : 0, (int)column + 1);
  if (!node) return niti_yaml_no_memory(builder->origin);
  if (kind == NITI_YAML_SCALAR) {
    const char *value = (const char *)event->data.scalar.value;
    if (memchr(value, 0, event->data.scalar.length)) return fail_at(builder, line, column, "a zero character in a text");
    node->text = niti_yaml_copy(builder->document, value, event->data.scalar.length);
    if (!node->text) return niti_yaml_no_memory(builder->origin);
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
  }
  NITI_TRY(attach(builder, node));
  if (kind == NITI_YAML_SCALAR) return NITI_OK;
  if (builder->depth == NITI_YAML_DEPTH_MAX) return fail_at(builder, line, column, "nested more than 64 levels deep");
  builder->open[builder->depth] = node;
  builder->key[builder->depth++] = NULL;
  return NITI_OK;
}

static NitiStatus take(Builder *builder, const yaml_event_t *event) {
  switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
      if (!builder->root) return NITI_OK;
      return fail_at(builder, event->start_mark.line, event->start_mark.column, "a second document (expected one)");
    case YAML_ALIAS_EVENT:
      return fail_at(builder, event->start_mark.line, event->start_mark.column, "aliases (*) are not supported");
    case YAML_SCALAR_EVENT: return add(builder, event, NITI_YAML_SCALAR, event->data.scalar.anchor, event->data.scalar.tag);
    case YAML_SEQUENCE_START_EVENT:
      return add(builder, event, NITI_YAML_SEQUENCE, event->data.sequence_start.anchor, event->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
      return add(builder, event, NITI_YAML_MAPPING, event->data.mapping_start.anchor, event->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: --builder->depth; return NITI_OK;
    default: return NITI_OK;
  }
}

/* Whether a line begins here; libyaml knows five ends of lines. */
static bool begins_line(const char *text, const char *at) {
  const size_t before = (size_t)(at - text);
  return before == 0 || at[-1] == '\n' || at[-1] == '\r' || (before >= 2 && memcmp(at - 2, "\xc2\x85", 2) == 0) ||
         (before >= 3 && (memcmp(at - 3, "\xe2\x80\xa8", 3) == 0 || memcmp(at - 3, "\xe2\x80\xa9", 3) == 0));
}

/* Refuses directives that declare tags before libyaml sees them: it compares each one with all before it. */
static NitiStatus check_directives(const Builder *builder, const char *text, size_t length) {
  size_t line = 0;
  for (const char *at = text, *end = text + length; (at = memchr(at, '%', (size_t)(end - at))); ++at) {
    if ((size_t)(end - at) < 4 || memcmp(at, "%TAG", 4) != 0 || !begins_line(text, at)) continue;
    for (const char *before = text; before < at; ++before) line += *before == '\n';
    return fail_at(builder, line, 0, "directives (%TAG) are not supported");
  }
  return NITI_OK;
}

NitiStatus niti_yaml_parse_into(NitiYaml **out, NitiYamlDocument *document, const char *text, size_t length, const char *origin,
                                bool place) {
  Builder builder = {.document = document, .origin = origin, .place = place};
  yaml_parser_t parser;
  NitiStatus status = NITI_OK;
  *out = NULL;
  if (length > NITI_YAML_BYTES_MAX) {
    return niti_fail(place ? NITI_ERROR_FORMAT : NITI_ERROR_ARGUMENT, "%s: longer than %d bytes", origin, NITI_YAML_BYTES_MAX);
  }
  if (length >= strlen(NITI_BYTE_ORDER_MARK) && memcmp(text, NITI_BYTE_ORDER_MARK, strlen(NITI_BYTE_ORDER_MARK)) == 0) {
    text += strlen(NITI_BYTE_ORDER_MARK);
    length -= strlen(NITI_BYTE_ORDER_MARK);
  }
  NITI_TRY(check_directives(&builder, text, length));
  if (!yaml_parser_initialize(&parser)) return niti_yaml_no_memory(origin);
  yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
  for (bool done = false; !done && status == NITI_OK;) {
    yaml_event_t event;
    if (!yaml_parser_parse(&parser, &event)) {
      status = fail_parser(&builder, &parser, text);
      break;
    }
    done = event.type == YAML_STREAM_END_EVENT;
    status = take(&builder, &event);
    yaml_event_delete(&event);
  }
  yaml_parser_delete(&parser);
  if (status == NITI_OK) *out = builder.root;
  return status;
}
