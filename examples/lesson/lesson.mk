# Part of each example's Makefile: exports the network for LAYOUT into network/, and puts HEADERS (lesson.h) into LESSON, beside the program.
NITI ?= niti
HEADERS ?= lesson.h

.PHONY: all network clean
network: $(HEADERS:%=$(LESSON)/%)
	$(NITI) export c ../lesson/recipe.yaml --layout $(LAYOUT) --out network

$(HEADERS:%=$(LESSON)/%): $(LESSON)/%: ../lesson/%
	mkdir -p $(LESSON)
	cp $< $@

clean:
	rm -rf network build $(HEADERS:%=$(LESSON)/%)
