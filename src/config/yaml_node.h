/* Internal to the document layer: making nodes. */
#ifndef NITI_CONFIG_YAML_NODE_H
#define NITI_CONFIG_YAML_NODE_H

#include "config/yaml.h"

/* `count` zeroed bytes that live as long as the document; NULL: out of memory, which the document records. */
void *niti_yaml_memory(NitiYamlDocument *document, size_t count);
/* A copy of `length` bytes and a zero byte. */
char *niti_yaml_copy(NitiYamlDocument *document, const char *text, size_t length);
/* A node without content. */
NitiYaml *niti_yaml_node(NitiYamlDocument *document, NitiYamlKind kind, const char *origin, int line, int column);
/* Appends to a sequence (key NULL) or a mapping. False: out of memory. */
bool niti_yaml_push(NitiYamlDocument *document, NitiYaml *parent, NitiYaml *key, NitiYaml *value);
/* Replaces control characters, for messages. */
void niti_yaml_one_line(char *text);
bool niti_yaml_failed(const NitiYamlDocument *document);
NitiStatus niti_yaml_no_memory(const char *origin);
/* Parses text into a tree of this document. place: give nodes their line and column, else line 0. *out NULL: the text is empty.
 */
NitiStatus niti_yaml_parse_into(NitiYaml **out, NitiYamlDocument *document, const char *text, size_t length, const char *origin,
                                bool place);

#endif
