/* Writes nodes as text, through libyaml's emitter. */
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "config/yaml_node.h"

typedef struct Text {
  char *data;
  size_t used, size;
  bool failed;
} Text;

static int take(void *context, unsigned char *bytes, size_t count) {
  Text *text = context;
  if (text->size - text->used <= count) {
    const size_t size = 2 * text->size + count + 1024;
    char *data = realloc(text->data, size);
    if (!data) {
      text->failed = true;
      return 0;
    }
    text->data = data;
    text->size = size;
  }
  memcpy(text->data + text->used, bytes, count);
  text->used += count;
  text->data[text->used] = 0;
  return 1;
}

static bool only_scalars(const NitiYaml *node) {
  for (size_t i = 0; i < node->count; ++i) {
    if (node->items[i]->kind != NITI_YAML_SCALAR) return false;
  }
  return true;
}

/* Written on one line: mappings of scalars, lists of scalars or of such mappings. */
static bool in_line(const NitiYaml *node) {
  if (only_scalars(node)) return true;
  if (node->kind == NITI_YAML_MAPPING) return false;
  for (size_t i = 0; i < node->count; ++i) {
    const NitiYaml *item = node->items[i];
    if (item->kind != NITI_YAML_SCALAR && !(item->kind == NITI_YAML_MAPPING && only_scalars(item))) return false;
  }
  return true;
}

/* A key keeps its text: two that mean null would otherwise be written alike. */
static bool emit_scalar(yaml_emitter_t *emitter, const NitiYaml *node, bool key) {
  yaml_event_t event;
  const char *text = !key && niti_yaml_is_null(node) ? "null" : node->text;
  const yaml_scalar_style_t style = node->quoted ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE;
  return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), 1, 1, style) &&
         yaml_emitter_emit(emitter, &event);
}

/* Recursion is as deep as the tree, which parsing and edits bound. */
static bool emit(yaml_emitter_t *emitter, const NitiYaml *node, bool root) {
  yaml_event_t event;
  const bool flow = !root && in_line(node);
  if (node->kind == NITI_YAML_SCALAR) return emit_scalar(emitter, node, false);
  if (node->kind == NITI_YAML_SEQUENCE) {
    const yaml_sequence_style_t style = flow ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE;
    if (!yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, style)) return false;
  } else {
    const yaml_mapping_style_t style = flow ? YAML_FLOW_MAPPING_STYLE : YAML_BLOCK_MAPPING_STYLE;
    if (!yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, style)) return false;
  }
  if (!yaml_emitter_emit(emitter, &event)) return false;
  for (size_t i = 0; i < node->count; ++i) {
    if (node->kind == NITI_YAML_MAPPING && !emit_scalar(emitter, node->keys[i], true)) return false;
    if (!emit(emitter, node->items[i], false)) return false;
  }
  const int ready =
      node->kind == NITI_YAML_SEQUENCE ? yaml_sequence_end_event_initialize(&event) : yaml_mapping_end_event_initialize(&event);
  return ready && yaml_emitter_emit(emitter, &event);
}

static bool emit_document(yaml_emitter_t *emitter, const NitiYaml *node) {
  yaml_event_t event;
  return yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) && yaml_emitter_emit(emitter, &event) &&
         yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) && yaml_emitter_emit(emitter, &event) &&
         emit(emitter, node, true) && yaml_document_end_event_initialize(&event, 1) && yaml_emitter_emit(emitter, &event) &&
         yaml_stream_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event);
}

NitiStatus niti_yaml_write(char **out, const NitiYamlDocument *document, const NitiYaml *node) {
  Text text = {NULL, 0, 0, false};
  yaml_emitter_t emitter;
  *out = NULL;
  if (niti_yaml_failed(document) || !node || !yaml_emitter_initialize(&emitter)) {
    return niti_fail(NITI_ERROR_MEMORY, "out of memory while writing YAML");
  }
  yaml_emitter_set_output(&emitter, take, &text);
  yaml_emitter_set_width(&emitter, -1);
  yaml_emitter_set_unicode(&emitter, 1);
  const bool written = emit_document(&emitter, node);
  const bool memory = text.failed || !emitter.problem || emitter.error == YAML_MEMORY_ERROR; /* an event that cannot be made */
  NitiStatus status = NITI_OK;
  if (!written || !text.data) {
    status = memory ? niti_fail(NITI_ERROR_MEMORY, "out of memory while writing YAML")
                    : niti_fail(NITI_ERROR_FORMAT, "cannot write YAML: %s", emitter.problem);
  }
  yaml_emitter_delete(&emitter);
  if (status == NITI_OK) {
    *out = text.data;
  } else {
    free(text.data);
  }
  return status;
}
