/* Build files of an exported network, one set per layout. */
#include "export/layouts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/source.h"
#include "platform/text.h"

const char *const niti_export_layouts[] = {"cmake", "platformio", "arduino", "zephyr", "cmsis-pack", NULL};

void niti_export_add_file(NitiExportFiles *files, const char *folder, const char *name, char *text) {
  NitiExportFile *f = &files->files[files->count++];
  (void)snprintf(f->path, sizeof f->path, "%s%s", folder, name);
  f->text = text;
}

void niti_export_files_close(NitiExportFiles *files) {
  for (int i = 0; i < files->count; ++i) free(files->files[i].text);
  files->count = 0;
}

const char *niti_export_folder(NitiExportLayout layout) { return layout == NITI_EXPORT_CMAKE ? "" : "src/"; }

__attribute__((format(printf, 3, 4))) static void add(NitiExportFiles *files, const char *path, const char *format, ...) {
  NitiTextMemory memory;
  va_list args;
  va_start(args, format);
  if (niti_text_open(&memory)) (void)vfprintf(memory.to, format, args);
  va_end(args);
  niti_export_add_file(files, "", path, niti_text_close(&memory, NULL));
}

/* ---- examples: a program that trains, for networks that do ---- */

static void add_main(NitiExportFiles *files, const char *path, const char *name) {
  char upper[NITI_EXPORT_NAME_MAX];
  niti_export_c_name(upper, name, true);
  add(files, path,
      "/* Trains on ten images and prints the hash of the weights. */\n#include <stdio.h>\n\n#include \"%s.h\"\n\n"
      "static %s network;\nstatic int32_t arena[(%s_ARENA_BYTES + 3) / 4];\n"
      "static uint8_t pixels[%s_HEIGHT * %s_WIDTH * %s_CHANNELS]; /* fill it from the camera */\n\n"
      "int main(void) {\n  char hash[65];\n  uint16_t label = 0; /* what the image shows */\n  int i;\n"
      "  %s_init(&network, arena);\n  for (i = 0; i < 10; ++i) %s_train(&network, pixels, &label, 1);\n"
      "  %s_hash(&network, hash);\n  printf(\"%%s\\n\", hash);\n  return 0;\n}\n",
      name, name, upper, upper, upper, upper, name, name, name);
}

static void add_sketch(NitiExportFiles *files, const char *path, const char *name) {
  char upper[NITI_EXPORT_NAME_MAX];
  niti_export_c_name(upper, name, true);
  add(files, path,
      "// Trains on one image per second and prints the hash of the weights.\n#include <Arduino.h>\n#include <%s.h>\n\n"
      "static %s network;\nalignas(4) static uint8_t arena[%s_ARENA_BYTES];\n"
      "static uint8_t pixels[%s_HEIGHT * %s_WIDTH * %s_CHANNELS];  // fill it from the camera\n\n"
      "void setup() {\n  Serial.begin(115200);\n  %s_init(&network, arena);\n}\n\n"
      "void loop() {\n  char hash[65];\n  uint16_t label = 0;  // what the image shows\n"
      "  %s_train(&network, pixels, &label, 1);\n  %s_hash(&network, hash);\n  Serial.println(hash);\n  delay(1000);\n}\n",
      name, name, upper, upper, upper, upper, name, name, name);
}

/* ---- layouts ---- */

static void add_cmake(NitiExportFiles *files, const char *name, bool trains) {
  add(files, "CMakeLists.txt",
      "# add_subdirectory this folder, and link to %s.\ncmake_minimum_required(VERSION 3.13)\nproject(%s C)\n"
      "add_library(%s STATIC %s.c)\ntarget_include_directories(%s PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})\n"
      "set_target_properties(%s PROPERTIES C_STANDARD 99)\n",
      name, name, name, name, name, name);
  if (!trains) return;
  add(files, "examples/train/CMakeLists.txt",
      "# A program of its own: cmake -S . -B build, with your toolchain file.\ncmake_minimum_required(VERSION 3.13)\n"
      "project(train C)\nadd_subdirectory(../.. %s)\nadd_executable(train main.c)\ntarget_link_libraries(train %s)\n",
      name, name);
  add_main(files, "examples/train/main.c", name);
}

static void add_platformio(NitiExportFiles *files, const char *name, bool trains) {
  add(files, "library.json",
      "{\n  \"name\": \"%s\",\n  \"version\": \"1.0.0\",\n  \"description\": \"A network of integers that trains on the "
      "device\",\n"
      "  \"frameworks\": \"*\",\n  \"platforms\": \"*\",\n  \"build\": {\"srcDir\": \"src\", \"flags\": \"-std=gnu99\"}\n}\n",
      name);
  if (!trains) return;
  add(files, "examples/train/platformio.ini",
      "; pio run -t upload, for your board\n[env:nucleo_f446re]\nplatform = ststm32\nboard = nucleo_f446re\nframework = arduino\n"
      "lib_deps = symlink://../..\nmonitor_speed = 115200\n");
  add_sketch(files, "examples/train/src/main.cpp", name);
}

static void add_arduino(NitiExportFiles *files, const char *name, bool trains) {
  add(files, "library.properties",
      "name=%s\nversion=1.0.0\nauthor=niti %s\nmaintainer=niti\nsentence=A network of integers that trains on the device.\n"
      "paragraph=C99 without floating point or allocation.\ncategory=Data "
      "Processing\nurl=https://example.invalid/%s\narchitectures=*\nincludes=%s.h\n",
      name, niti_version(), name, name);
  if (trains) add_sketch(files, "examples/train/train.ino", name);
}

static void add_zephyr(NitiExportFiles *files, const char *name, bool trains) {
  add(files, "zephyr/module.yml", "name: %s\nbuild:\n  cmake: .\n  kconfig: Kconfig\n", name);
  add(files, "Kconfig", "config NITI_%s\n\tbool \"The network %s\"\n\tdefault y\n", name, name);
  add(files, "CMakeLists.txt",
      "if(CONFIG_NITI_%s)\n  zephyr_library()\n  zephyr_library_sources(src/%s.c)\n  zephyr_include_directories(src)\nendif()\n",
      name, name);
  if (!trains) return;
  add(files, "samples/train/CMakeLists.txt",
      "# west build -b BOARD, in this folder\ncmake_minimum_required(VERSION 3.20)\n"
      "list(APPEND EXTRA_ZEPHYR_MODULES ${CMAKE_CURRENT_SOURCE_DIR}/../..)\n"
      "find_package(Zephyr REQUIRED HINTS $ENV{ZEPHYR_BASE})\nproject(train C)\ntarget_sources(app PRIVATE src/main.c)\n");
  add(files, "samples/train/prj.conf", "CONFIG_MAIN_STACK_SIZE=4096\nCONFIG_STDOUT_CONSOLE=y\n");
  add_main(files, "samples/train/src/main.c", name);
}

static void add_pack(NitiExportFiles *files, const char *name, bool trains) {
  char path[2 * NITI_EXPORT_NAME_MAX];
  (void)snprintf(path, sizeof path, "niti.%s.pdsc", name);
  add(files, path,
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<package schemaVersion=\"1.7.7\" "
      "xmlns:xs=\"http://www.w3.org/2001/XMLSchema-instance\"\n"
      "         xs:noNamespaceSchemaLocation=\"PACK.xsd\">\n  <vendor>niti</vendor>\n  <name>%s</name>\n"
      "  <description>A network of integers that trains on the device</description>\n  <url></url>\n"
      "  <releases>\n    <release version=\"1.0.0\">Exported by niti %s</release>\n  </releases>\n"
      "  <components>\n    <component Cclass=\"Machine Learning\" Cgroup=\"niti\" Csub=\"%s\" Cversion=\"1.0.0\">\n"
      "      <description>The network %s</description>\n      <files>\n        <file category=\"include\" name=\"src/\"/>\n"
      "        <file category=\"source\" name=\"src/%s.c\"/>\n%s      </files>\n    </component>\n  </components>\n</package>\n",
      name, niti_version(), name, name, name,
      trains ? "        <file category=\"source\" attr=\"template\" select=\"Training\" name=\"examples/train/main.c\"/>\n" : "");
  if (trains) add_main(files, "examples/train/main.c", name);
}

void niti_export_add_layout(NitiExportFiles *files, NitiExportLayout layout, const NitiExportReport *report) {
  const bool trains = report->trained > 0;
  switch (layout) {
    case NITI_EXPORT_CMAKE: add_cmake(files, report->name, trains); break;
    case NITI_EXPORT_PLATFORMIO: add_platformio(files, report->name, trains); break;
    case NITI_EXPORT_ARDUINO: add_arduino(files, report->name, trains); break;
    case NITI_EXPORT_ZEPHYR: add_zephyr(files, report->name, trains); break;
    case NITI_EXPORT_CMSIS_PACK: add_pack(files, report->name, trains); break;
  }
}
