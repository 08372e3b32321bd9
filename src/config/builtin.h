/* The files of models/, recipes/ and src/export/runtime/, built into the library (cmake/builtin.cmake writes their definitions).
 */
#ifndef NITI_CONFIG_BUILTIN_H
#define NITI_CONFIG_BUILTIN_H

#include <stddef.h>

/* In natural order of the names; the names' arrays end with NULL and texts[i] belongs to names[i]. */
extern const char *const niti_builtin_model_names[], *const niti_builtin_model_texts[];
extern const char *const niti_builtin_recipe_names[], *const niti_builtin_recipe_texts[];
extern const char *const niti_builtin_runtime_names[], *const niti_builtin_runtime_texts[]; /* names without ".h" */

/* The text of a built-in file; NULL: no such name. */
const char *niti_builtin_model_text(const char *name);
const char *niti_builtin_recipe_text(const char *name);
/* The names separated by commas, for messages; "..." stands for those that do not fit. size: at least 6. Returns buffer. */
const char *niti_builtin_list(char *buffer, size_t size, const char *const *names);

#endif
