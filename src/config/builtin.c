/* Looks up built-in models and recipes by name. */
#include "config/builtin.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(const char *const *names, const char *const *texts, const char *name) {
  for (size_t i = 0; names[i]; ++i) {
    if (strcmp(names[i], name) == 0) return texts[i];
  }
  return NULL;
}

const char *niti_builtin_model_text(const char *name) {
  return text_of(niti_builtin_model_names, niti_builtin_model_texts, name);
}

const char *niti_builtin_recipe_text(const char *name) {
  return text_of(niti_builtin_recipe_names, niti_builtin_recipe_texts, name);
}

const char *niti_builtin_list(char *buffer, size_t size, const char *const *names) {
  static const char rest[] = ", ...";
  size_t used = 0;
  buffer[0] = 0;
  for (size_t i = 0; names[i]; ++i) {
    const char *separator = i ? ", " : "";
    if (used + strlen(separator) + strlen(names[i]) + (names[i + 1] ? sizeof rest : 1) > size) {
      (void)snprintf(buffer + used, size - used, "%s...", separator);
      break;
    }
    used += (size_t)snprintf(buffer + used, size - used, "%s%s", separator, names[i]);
  }
  return buffer;
}
