/* YAML documents: memory, nodes and files. */
#include "config/yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/yaml_node.h"
#include "platform/file.h"

enum { CHUNK_BYTES = 16 << 10, ALIGNMENT = 16 };

typedef struct Chunk {
  struct Chunk *next;
  size_t used, size;
  _Alignas(ALIGNMENT) unsigned char data[];
} Chunk;

struct NitiYamlDocument {
  Chunk *chunks;
  NitiYaml *root;
  bool failed; /* memory ran out */
};

void *niti_yaml_memory(NitiYamlDocument *document, size_t count) {
  const size_t need = (count + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  Chunk *chunk = document->chunks;
  if (!chunk || chunk->size - chunk->used < need) {
    const size_t size = need > CHUNK_BYTES ? need : CHUNK_BYTES;
    chunk = calloc(1, sizeof *chunk + size);
    if (!chunk) {
      document->failed = true;
      return NULL;
    }
    chunk->size = size;
    chunk->next = document->chunks;
    document->chunks = chunk;
  }
  void *memory = chunk->data + chunk->used;
  chunk->used += need;
  return memory;
}

char *niti_yaml_copy(NitiYamlDocument *document, const char *text, size_t length) {
  char *copy = niti_yaml_memory(document, length + 1);
  if (copy) memcpy(copy, text, length);
  return copy;
}

NitiYaml *niti_yaml_node(NitiYamlDocument *document, NitiYamlKind kind, const char *origin, int line, int column) {
  NitiYaml *node = niti_yaml_memory(document, sizeof *node);
  if (!node) return NULL;
  node->kind = kind;
  node->text = "";
  node->origin = origin;
  node->line = line;
  node->column = column;
  return node;
}

bool niti_yaml_push(NitiYamlDocument *document, NitiYaml *parent, NitiYaml *key, NitiYaml *value) {
  if (parent->count == parent->capacity) {
    const size_t capacity = parent->capacity ? 2 * parent->capacity : 4;
    NitiYaml **items = niti_yaml_memory(document, capacity * sizeof *items);
    NitiYaml **keys = key ? niti_yaml_memory(document, capacity * sizeof *keys) : NULL;
    if (!items || (key && !keys)) return false;
    if (parent->count) memcpy(items, parent->items, parent->count * sizeof *items);
    if (parent->count && keys) memcpy(keys, parent->keys, parent->count * sizeof *keys);
    parent->items = items;
    parent->keys = keys;
    parent->capacity = capacity;
  }
  if (key) parent->keys[parent->count] = key;
  parent->items[parent->count++] = value;
  return true;
}

void niti_yaml_one_line(char *text) {
  for (char *p = text; *p; ++p) {
    if ((unsigned char)*p < 0x20 || *p == 0x7F) *p = '?';
  }
}

bool niti_yaml_failed(const NitiYamlDocument *document) { return document->failed; }

NitiStatus niti_yaml_no_memory(const char *origin) {
  return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory while reading YAML", origin);
}

static NitiStatus document_new(NitiYamlDocument **out, const char *source) {
  *out = calloc(1, sizeof **out);
  return *out ? NITI_OK : niti_yaml_no_memory(source);
}

NitiStatus niti_yaml_open(NitiYamlDocument **out) {
  NITI_TRY(document_new(out, "a new document"));
  (*out)->root = niti_yaml_mapping(*out);
  if ((*out)->root) return NITI_OK;
  niti_yaml_close(*out);
  *out = NULL;
  return niti_yaml_no_memory("a new document");
}

NitiStatus niti_yaml_parse(NitiYamlDocument **out, const char *text, const char *source) {
  NitiYamlDocument *document = NULL;
  *out = NULL;
  NITI_TRY(document_new(&document, source));
  char *origin = niti_yaml_copy(document, source, strlen(source));
  if (origin) niti_yaml_one_line(origin);
  NitiStatus status =
      origin ? niti_yaml_parse_into(&document->root, document, text, strlen(text), origin, true) : niti_yaml_no_memory(source);
  if (status == NITI_OK && !document->root) {
    status = niti_fail(NITI_ERROR_FORMAT, "%s:1:1: the file is empty (expected a YAML mapping)", source);
  }
  if (status != NITI_OK) {
    niti_yaml_close(document);
    return status;
  }
  *out = document;
  return NITI_OK;
}

/* A zero byte would be taken for the end. */
static NitiStatus check_zeros(const char *text, size_t length, const char *path) {
  const size_t used = strlen(text);
  size_t line = 1, start = 0;
  if (used == length) return NITI_OK;
  for (size_t i = 0; i < used; ++i) {
    if (text[i] != '\n') continue;
    ++line;
    start = i + 1;
  }
  return niti_fail(NITI_ERROR_FORMAT, "%s:%zu:%zu: not plain UTF-8 text: a zero byte", path, line, used - start + 1);
}

NitiStatus niti_yaml_read_text(char **text, const char *path) {
  size_t length = 0;
  NITI_TRY(niti_file_read_any(text, &length, path, NITI_YAML_BYTES_MAX));
  const NitiStatus status = check_zeros(*text, length, path);
  if (status == NITI_OK) return NITI_OK;
  free(*text);
  *text = NULL;
  return status;
}

NitiStatus niti_yaml_read(NitiYamlDocument **out, const char *path) {
  *out = NULL;
  char *text;
  NITI_TRY(niti_yaml_read_text(&text, path));
  const NitiStatus status = niti_yaml_parse(out, text, path);
  free(text);
  return status;
}

void niti_yaml_close(NitiYamlDocument *document) {
  if (!document) return;
  for (Chunk *chunk = document->chunks; chunk;) {
    Chunk *next = chunk->next;
    free(chunk);
    chunk = next;
  }
  free(document);
}

bool niti_yaml_is_path(const char *name) {
  const size_t length = strlen(name);
  return strchr(name, '/') || (length > 5 && strcmp(name + length - 5, ".yaml") == 0) ||
         (length > 4 && strcmp(name + length - 4, ".yml") == 0);
}

NitiYaml *niti_yaml_root(const NitiYamlDocument *document) { return document->root; }
