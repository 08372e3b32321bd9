/* A small document layer over libyaml: trees of nodes that know where they came from, typed access whose messages name that
 * place, edits by path (`--set`), and writing a tree as text.
 *
 * The YAML accepted is one document in UTF-8 without anchors, aliases and tags, of bounded size and depth, whose keys are
 * words used once in their mapping. Nodes live as long as their document. */
#ifndef NITI_CONFIG_YAML_H
#define NITI_CONFIG_YAML_H

#include "platform/status.h"

enum {
  NITI_YAML_BYTES_MAX = 1 << 20,
  NITI_YAML_NODES_MAX = 1 << 16,
  NITI_YAML_KEYS_MAX = 1024, /* of one mapping */
  NITI_YAML_DEPTH_MAX = 64,
  NITI_YAML_PATH_MAX = 16,  /* keys of an edit's path */
  NITI_YAML_FOUND_MAX = 64, /* bytes of niti_yaml_found's text, the zero byte included */
};

typedef enum NitiYamlKind { NITI_YAML_SCALAR, NITI_YAML_SEQUENCE, NITI_YAML_MAPPING } NitiYamlKind;

typedef struct NitiYaml NitiYaml;
struct NitiYaml {
  NitiYamlKind kind;
  bool quoted;        /* a scalar written in quotes or as a block: text, never a number */
  int line, column;   /* from 1; line 0: not from a file, `origin` alone says where */
  const char *origin; /* the file, or the --set option */
  const char *text;   /* scalar */
  NitiYaml **keys;    /* mapping: [count] scalars */
  NitiYaml **items;   /* mapping, sequence: [count] */
  size_t count, capacity;
};

typedef struct NitiYamlDocument NitiYamlDocument;

/* -- documents -- */

/* From text; source is for messages ("models/foo.yaml", "built-in lenet5"). Fails with NITI_ERROR_FORMAT. */
NitiStatus niti_yaml_parse(NitiYamlDocument **out, const char *text, const char *source);
/* A file's text, which the caller frees. Fails as niti_yaml_read does, also where the text has a zero byte. */
NitiStatus niti_yaml_read_text(char **text, const char *path);
/* From a file. Fails with NITI_ERROR_FILE if it cannot be read, NITI_ERROR_FORMAT if it is not the YAML accepted. */
NitiStatus niti_yaml_read(NitiYamlDocument **out, const char *path);
/* An empty mapping to build on. */
NitiStatus niti_yaml_open(NitiYamlDocument **out);
void niti_yaml_close(NitiYamlDocument *document);
NitiYaml *niti_yaml_root(const NitiYamlDocument *document);

/* Whether a name means a file rather than a built-in: it has a '/' or ends in .yaml or .yml. */
bool niti_yaml_is_path(const char *name);

/* -- errors -- */

/* Fails with "FILE:LINE:COLUMN: message" and NITI_ERROR_FORMAT or, for a node from an edit, with
 * "--set PATH=VALUE: message" and NITI_ERROR_ARGUMENT. */
NitiStatus niti_yaml_fail(const NitiYaml *node, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prefixes the last failure's message with the node's place. */
NitiStatus niti_yaml_fail_within(NitiStatus status, const NitiYaml *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Describes a node, for "found ...": 'text' (shortened, control characters replaced), "nothing", "a sequence", "a mapping".
 * Returns buffer. */
const char *niti_yaml_found(char buffer[NITI_YAML_FOUND_MAX], const NitiYaml *node);

/* -- access: `what` names the value in messages -- */

/* The value of a mapping's key; NULL: absent. */
NitiYaml *niti_yaml_get(const NitiYaml *mapping, const char *key);
/* A scalar without text, `~` or `null`. */
bool niti_yaml_is_null(const NitiYaml *node);
/* A scalar equal to `word`, in quotes or not. */
bool niti_yaml_is_word(const NitiYaml *node, const char *word);
NitiStatus niti_yaml_want_mapping(const NitiYaml *node, const char *what);
NitiStatus niti_yaml_want_sequence(const NitiYaml *node, const char *what);
/* Every key of the mapping is one of `keys` (NULL-terminated). */
NitiStatus niti_yaml_want_keys(const NitiYaml *mapping, const char *what, const char *const *keys);
/* The value of a required key. */
NitiStatus niti_yaml_want(NitiYaml **out, const NitiYaml *mapping, const char *what, const char *key);
/* Decimal integers without leading zeros. */
NitiStatus niti_yaml_int(int32_t *out, const NitiYaml *node, const char *what, int32_t min, int32_t max);
NitiStatus niti_yaml_uint64(uint64_t *out, const NitiYaml *node, const char *what, uint64_t max);
NitiStatus niti_yaml_bool(bool *out, const NitiYaml *node, const char *what);
/* A decimal number of at most so many places, at most 9, exactly: value * 10^places. min and max likewise. */
NitiStatus niti_yaml_decimal(int64_t *out, const NitiYaml *node, const char *what, int places, int64_t min, int64_t max);
/* The number as text, without needless zeros. */
void niti_yaml_decimal_text(char *buffer, size_t size, int64_t value, int places);
/* A decimal number of at most 6 decimals, exactly, in millionths; min and max in millionths. */
NitiStatus niti_yaml_millionths(int32_t *out, const NitiYaml *node, const char *what, int32_t min, int32_t max);
/* A share in millionths: a percentage of at most 4 decimals (`12.5%`), or a decimal number below 1; min and max in millionths. */
NitiStatus niti_yaml_share(int32_t *out, const NitiYaml *node, const char *what, int32_t min, int32_t max);
/* One of `choices` (NULL-terminated), as its index. */
NitiStatus niti_yaml_choice(int32_t *out, const NitiYaml *node, const char *what, const char *const *choices);
/* A name of [A-Za-z0-9_.-], 1 to size - 1 characters. */
NitiStatus niti_yaml_name(char *out, size_t size, const NitiYaml *node, const char *what);

/* -- edits: a NULL node or document out of memory is remembered and reported by niti_yaml_write -- */

/* New nodes, not yet in the tree. text is copied; origin is "made". */
NitiYaml *niti_yaml_scalar(NitiYamlDocument *document, const char *text);
NitiYaml *niti_yaml_printf(NitiYamlDocument *document, const char *format, ...) __attribute__((format(printf, 2, 3)));
NitiYaml *niti_yaml_sequence(NitiYamlDocument *document);
NitiYaml *niti_yaml_mapping(NitiYamlDocument *document);
/* Appends to a sequence. */
void niti_yaml_append(NitiYamlDocument *document, NitiYaml *sequence, NitiYaml *item);
/* Sets a mapping's key, replacing its value. */
void niti_yaml_put(NitiYamlDocument *document, NitiYaml *mapping, const char *key, NitiYaml *value);
/* Applies "key.path=value": keys lead through mappings (made where absent), numbers from 0 through sequences, and the value is
 * YAML. Fails with NITI_ERROR_ARGUMENT and a message that begins with "--set key.path=value". Whether the keys mean anything is
 * found later, by niti_yaml_want_keys, with the same beginning. */
NitiStatus niti_yaml_set(NitiYamlDocument *document, const char *edit);
/* -- writing -- */

/* A tree as YAML that parses to the same tree; *out is the caller's to free(). document is the one the nodes were made in;
 * a failure to make one is reported here. Short lists and mappings of words are written on one line. */
NitiStatus niti_yaml_write(char **out, const NitiYamlDocument *document, const NitiYaml *node);

#endif
