# Part of each example's Makefile: exports the network for LAYOUT into network/, and puts lesson.h into LESSON, beside the program.
NITI ?= niti

.PHONY: all network clean
network: $(LESSON)/lesson.h
	$(NITI) export c ../lesson/recipe.yaml --layout $(LAYOUT) --out network

$(LESSON)/lesson.h: ../lesson/lesson.h
	mkdir -p $(LESSON)
	cp ../lesson/lesson.h $@

clean:
	rm -rf network build $(LESSON)/lesson.h
