/* Makes new nodes and applies edits by path. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/yaml_node.h"

NitiYaml *niti_yaml_scalar(NitiYamlDocument *document, const char *text) {
  NitiYaml *node = niti_yaml_node(document, NITI_YAML_SCALAR, "made", 0, 0);
  if (node) node->text = niti_yaml_copy(document, text, strlen(text));
  return node && node->text ? node : NULL;
}

NitiYaml *niti_yaml_printf(NitiYamlDocument *document, const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return niti_yaml_scalar(document, text);
}

NitiYaml *niti_yaml_sequence(NitiYamlDocument *document) { return niti_yaml_node(document, NITI_YAML_SEQUENCE, "made", 0, 0); }

NitiYaml *niti_yaml_mapping(NitiYamlDocument *document) { return niti_yaml_node(document, NITI_YAML_MAPPING, "made", 0, 0); }

void niti_yaml_append(NitiYamlDocument *document, NitiYaml *sequence, NitiYaml *item) {
  if (sequence && item) (void)niti_yaml_push(document, sequence, NULL, item);
}

void niti_yaml_put(NitiYamlDocument *document, NitiYaml *mapping, const char *key, NitiYaml *value) {
  if (!mapping || !value) return;
  for (size_t i = 0; i < mapping->count; ++i) {
    if (strcmp(mapping->keys[i]->text, key) != 0) continue;
    mapping->keys[i]->origin = value->origin;
    mapping->keys[i]->line = value->line;
    mapping->keys[i]->column = value->column;
    mapping->items[i] = value;
    return;
  }
  NitiYaml *name = niti_yaml_scalar(document, key);
  if (!name) return;
  name->origin = value->origin;
  name->line = value->line;
  name->column = value->column;
  (void)niti_yaml_push(document, mapping, name, value);
}

typedef struct Edit {
  NitiYamlDocument *document;
  const char *origin; /* "--set PATH=VALUE" */
} Edit;

static NitiStatus refuse(const Edit *edit, const char *format, const char *detail) {
  char text[128];
  (void)snprintf(text, sizeof text, format, detail);
  niti_yaml_one_line(text);
  return niti_fail(NITI_ERROR_ARGUMENT, "%s: %s", edit->origin, text);
}

/* The address of a list's item. */
static NitiStatus item_of(NitiYaml ***out, const Edit *edit, NitiYaml *sequence, const char *segment) {
  size_t index = 0;
  if (strspn(segment, "0123456789") != strlen(segment) || strlen(segment) > 6) {
    return refuse(edit, "'%s' is not a position in a list (expected a number from 0)", segment);
  }
  for (const char *p = segment; *p; ++p) index = index * 10 + (size_t)(*p - '0');
  if (index >= sequence->count) return refuse(edit, "the list has no item %s (they count from 0)", segment);
  *out = &sequence->items[index];
  return NITI_OK;
}

/* Puts value at the path's last segment, or advances *node by one segment. */
static NitiStatus follow(NitiYaml **node, const Edit *edit, const char *segment, NitiYaml *value) {
  NitiYaml *parent = *node, **item = NULL;
  if (parent->kind == NITI_YAML_SCALAR) return refuse(edit, "'%s' lies below a plain value (expected a mapping there)", segment);
  if (parent->kind == NITI_YAML_SEQUENCE) {
    NITI_TRY(item_of(&item, edit, parent, segment));
    if (value) *item = value;
    *node = *item;
    return NITI_OK;
  }
  NitiYaml *child = value ? value : niti_yaml_get(parent, segment);
  if (!child || (!value && niti_yaml_is_null(child))) {
    child = niti_yaml_node(edit->document, NITI_YAML_MAPPING, edit->origin, 0, 0);
    value = child;
  }
  if (value && !niti_yaml_get(parent, segment) && parent->count >= NITI_YAML_KEYS_MAX) return refuse(edit, "too many keys%s", "");
  if (value) niti_yaml_put(edit->document, parent, segment, value);
  *node = child;
  return NITI_OK;
}

static NitiStatus apply(const Edit *edit, char *path, NitiYaml *value) {
  NitiYaml *node = niti_yaml_root(edit->document);
  int count = 0;
  for (char *segment = path; segment;) {
    char *dot = strchr(segment, '.');
    if (dot) *dot = 0;
    if (*segment == 0 || ++count > NITI_YAML_PATH_MAX) {
      return refuse(edit, "expected KEY.PATH=VALUE with 1 to %s keys", "16");
    }
    NITI_TRY(follow(&node, edit, segment, dot ? NULL : value));
    if (niti_yaml_failed(edit->document) || !node) return niti_yaml_no_memory(edit->origin);
    segment = dot ? dot + 1 : NULL;
  }
  return NITI_OK;
}

NitiStatus niti_yaml_set(NitiYamlDocument *document, const char *text) {
  enum { SHOWN = 160 };
  const char *equals = strchr(text, '=');
  char shown[SHOWN + 16];
  (void)snprintf(shown, sizeof shown, "--set %.*s%s", SHOWN, text, strlen(text) > SHOWN ? "..." : "");
  niti_yaml_one_line(shown);
  const Edit edit = {document, niti_yaml_copy(document, shown, strlen(shown))};
  if (!edit.origin) return niti_yaml_no_memory(shown);
  if (!equals || equals == text) return refuse(&edit, "expected KEY.PATH=VALUE%s", "");
  char *path = niti_yaml_copy(document, text, (size_t)(equals - text));
  if (!path) return niti_yaml_no_memory(shown);
  NitiYaml *value;
  NITI_TRY(niti_yaml_parse_into(&value, document, equals + 1, strlen(equals + 1), edit.origin, false));
  if (!value) return refuse(&edit, "expected a value after '='%s", "");
  return apply(&edit, path, value);
}
