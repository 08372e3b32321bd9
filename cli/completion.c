/* niti completion: scripts for bash, zsh and fish. They ask `niti complete` for what could come next, which answers from the
 * tables: one candidate per line, with a tab before its description, and last `:file` or `:dir` where a path fits too. */
#include <string.h>

#include "cli.h"
#include "config/builtin.h"

static int run(int argc, char **argv);
static int answer(int argc, char **argv);
static const Option options[] = {{0}};
const Command command_completion = {"completion",
                                    "bash|zsh|fish",
                                    "print a script that completes niti's words in a shell",
                                    "niti completion bash >~/.local/share/bash-completion/completions/niti",
                                    "bash|zsh|fish",
                                    options,
                                    run};
const Command command_complete = {"complete", "-- WORD...", NULL, NULL, NULL, options, answer};

static const struct {
  const char *shell, *text;
} scripts[] = {
    {"bash",
     "# niti for bash: load this file, or install it as niti in bash-completion's folder\n"
     "_niti() {\n"
     "  local cur=${COMP_WORDS[COMP_CWORD]} line path\n"
     "  [ \"$cur\" != = ] || cur=\n"
     "  COMPREPLY=()\n"
     "  while IFS= read -r line; do\n"
     "    case $line in\n"
     "      :file | :dir)\n"
     "        compopt -o filenames 2>/dev/null\n"
     "        while IFS= read -r path; do COMPREPLY+=(\"$path\"); done < <(compgen -${line:1:1} -- \"$cur\")\n"
     "        ;;\n"
     "      *) COMPREPLY+=(\"${line%%$'\\t'*}\") ;;\n"
     "    esac\n"
     "  done < <(\"${COMP_WORDS[0]}\" complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
     "}\n"
     "complete -F _niti niti\n"},
    {"zsh",
     "#compdef niti\n"
     "# niti for zsh: install this file as _niti in a folder of fpath, or load it\n"
     "_niti() {\n"
     "  local -a found\n"
     "  local line paths=\n"
     "  for line in \"${(@f)$(\"${words[1]}\" complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\"; do\n"
     "    case $line in\n"
     "      (:file|:dir) paths=$line ;;\n"
     "      (?*) found+=(\"${${line%%$'\\t'*}//:/\\\\:}${${line#*$'\\t'}:+:${line#*$'\\t'}}\") ;;\n"
     "    esac\n"
     "  done\n"
     "  (( $#found )) && _describe niti found\n"
     "  case $paths in\n"
     "    (:file) _files ;;\n"
     "    (:dir) _files -/ ;;\n"
     "  esac\n"
     "}\n"
     "if [ \"${funcstack[1]}\" = _niti ]; then _niti \"$@\"; else compdef _niti niti; fi\n"},
    {"fish",
     "# niti for fish: install this file as niti.fish in a folder of fish_complete_path, or load it\n"
     "function __niti_complete\n"
     "  set -l words (commandline -opc)\n"
     "  set -l current (commandline -ct)\n"
     "  for line in ($words[1] complete -- $words[2..] \"$current\" 2>/dev/null)\n"
     "    switch $line\n"
     "      case :file\n"
     "        __fish_complete_path \"$current\"\n"
     "      case :dir\n"
     "        __fish_complete_directories \"$current\"\n"
     "      case '*'\n"
     "        echo $line\n"
     "    end\n"
     "  end\n"
     "end\n"
     "complete -c niti -f -a '(__niti_complete)'\n"},
};
enum { SCRIPTS = sizeof scripts / sizeof *scripts };

static int run(int argc, char **argv) {
  int count;
  const int code = options_parse(&command_completion, NULL, argc, argv, &count);
  if (code != -1) return code;
  for (int i = 0; count == 1 && i < SCRIPTS; ++i) {
    if (strcmp(argv[1], scripts[i].shell) != 0) continue;
    fputs(scripts[i].text, stdout);
    return EXIT_OK;
  }
  return usage_error(&command_completion, count == 1 ? "no script for '%s'" : "name one shell: bash, zsh or fish", argv[1]);
}

/* ---- answers ---- */

/* What the word being completed begins with; `before`: what stays in front of each candidate ("--backend="). */
typedef struct Wanted {
  const char *begin, *before;
  int before_length;
} Wanted;

static void offer(const Wanted *w, const char *candidate, int length, const char *description) {
  const size_t begin = strlen(w->begin);
  if ((size_t)length < begin || strncmp(candidate, w->begin, begin) != 0) return;
  printf("%.*s%.*s\t%s\n", w->before_length, w->before, length, candidate, description);
}

static void offer_all(const Wanted *w, const char *const *names, const char *description) {
  for (; *names; ++names) offer(w, *names, (int)strlen(*names), description);
}

static void offer_commands(const Wanted *w) {
  for (const Command *const *c = commands; *c; ++c) {
    if ((*c)->summary) offer(w, (*c)->name, (int)strlen((*c)->name), (*c)->summary);
  }
}

static void offer_options(const Wanted *w, const Command *command) {
  for (const Option *o = command->options; o->name; ++o) {
    char name[64];
    const int length = snprintf(name, sizeof name, "--%s", o->name);
    offer(w, name, length, o->help);
  }
  offer(w, "--help", 6, "this command's help");
}

/* One entry of Command.takes or Option.words. */
static void offer_words(const Wanted *w, const char *words, size_t length) {
  static const struct {
    const char *name;
    bool recipes, models;
    const char *path;
  } kinds[] = {{"FILE", false, false, ":file"}, {"DIR", false, false, ":dir"},    {"RECIPE", true, false, ":file"},
               {"MODEL", false, true, ":file"}, {"NETWORK", true, true, ":file"}, {"RUN", false, false, ":dir"}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; ++i) {
    if (strlen(kinds[i].name) != length || strncmp(words, kinds[i].name, length) != 0) continue;
    if (kinds[i].recipes) offer_all(w, niti_builtin_recipe_names, "a built-in recipe");
    if (kinds[i].models) offer_all(w, niti_builtin_model_names, "a built-in model");
    puts(kinds[i].path);
    return;
  }
  if (length == 7 && strncmp(words, "COMMAND", length) == 0) {
    offer_commands(w);
    return;
  }
  if (!memchr(words, '|', length)) return; /* N, KEY=VALUE: only the user knows */
  for (const char *word = words, *end = words + length; word < end;) {
    const char *bar = memchr(word, '|', (size_t)(end - word));
    if (!bar) bar = end;
    offer(w, word, (int)(bar - word), "");
    word = bar + 1;
  }
}

/* What fits as argument number i, from 0. */
static void offer_argument(const Wanted *w, const char *takes, int i) {
  if (!takes) return;
  size_t length = strcspn(takes, " ");
  for (; i > 0 && takes[length]; --i) {
    takes += length + 1;
    length = strcspn(takes, " ");
  }
  offer_words(w, takes, length);
}

static const Option *option_of(const Command *command, const char *word) {
  const size_t length = strcspn(word, "=");
  for (const Option *o = command->options; o->name; ++o) {
    if (strncmp(word, "--", 2) == 0 && strlen(o->name) == length - 2 && strncmp(o->name, word + 2, length - 2) == 0) return o;
  }
  return NULL;
}

/* argv: `complete -- WORD...`, the last WORD being typed. bash gives `--name=value` as three words, the others as one. */
static int answer(int argc, char **argv) {
  const Command *command = argc > 3 ? command_find(argv[2]) : NULL;
  const Option *pending = NULL; /* its value comes next */
  int arguments = 0;
  if (argc < 3) return EXIT_USAGE;
  for (int i = 3; command && i < argc - 1; ++i) {
    if (strcmp(argv[i], "=") == 0) continue;
    const Option *o = argv[i][0] == '-' ? option_of(command, argv[i]) : NULL;
    if (!pending && argv[i][0] != '-') ++arguments;
    pending = !pending && o && o->value && !strchr(argv[i], '=') ? o : NULL;
  }
  const char *last = argv[argc - 1], *equals = strchr(last, '=');
  Wanted wanted = {.begin = strcmp(last, "=") == 0 ? "" : last, .before = ""};
  if (argc == 3) {
    offer_commands(&wanted);
  } else if (!command) {
    return EXIT_OK;
  } else if (pending) {
    if (pending->words) offer_words(&wanted, pending->words, strlen(pending->words));
  } else if (last[0] == '-' && equals) {
    const Option *o = option_of(command, last);
    wanted = (Wanted){.begin = equals + 1, .before = last, .before_length = (int)(equals + 1 - last)};
    if (o && o->words) offer_words(&wanted, o->words, strlen(o->words));
  } else if (last[0] == '-') {
    offer_options(&wanted, command);
  } else {
    offer_argument(&wanted, command->takes, arguments);
  }
  return EXIT_OK;
}
