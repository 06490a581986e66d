package program

import "strings"

// helpers are functions that every cell has without importing anything, until it declares
// something of the same name. @ stands for a package of the kernel.
const helpers = `
// Display shows data as a MIME type: text for text types, bytes for images, anything for JSON.
func Display(mime ~string, data ~any) { @structured.Display("", mime, data, false) }
// DisplayID is Display under an id, by which UpdateDisplay replaces it.
func DisplayID(id, mime ~string, data ~any) { @structured.Display(id, mime, data, false) }
// UpdateDisplay replaces what was displayed under an id.
func UpdateDisplay(id, mime ~string, data ~any) { @structured.Display(id, mime, data, true) }
// DisplayValue shows a value as the result of a cell is shown.
func DisplayValue(value ~any) { @structured.DisplayValue("", value, false) }
// DisplayHTML shows HTML.
func DisplayHTML(html ~string) { @show.Display("", "text/html", html, false) }
// DisplayMarkdown shows Markdown.
func DisplayMarkdown(text ~string) { @show.Display("", "text/markdown", text, false) }
// DisplayLatex shows LaTeX.
func DisplayLatex(text ~string) { @show.Display("", "text/latex", text, false) }
// DisplaySVG shows an SVG image.
func DisplaySVG(svg ~string) { @show.Display("", "image/svg+xml", svg, false) }
// DisplayPNG shows a PNG image.
func DisplayPNG(data []~byte) { @show.Display("", "image/png", data, false) }
// DisplayJPEG shows a JPEG image.
func DisplayJPEG(data []~byte) { @show.Display("", "image/jpeg", data, false) }
// DisplayJSON shows a value as JSON.
func DisplayJSON(value ~any) { @structured.Display("", "application/json", value, false) }
// DisplayImage shows an image.
func DisplayImage(img #image.Image) { @picture.Display("", img, false) }
// ClearOutput takes away what the cell has shown; with wait only when the next comes.
func ClearOutput(wait ~bool) { @rt.Clear(wait) }
// Input asks for a line. It fails with io.EOF where nobody answers.
func Input(prompt ~string) (~string, ~error) { return @rt.Input(prompt, false) }
// InputPassword is Input for what nobody else should read.
func InputPassword(prompt ~string) (~string, ~error) { return @rt.Input(prompt, true) }
`

// helperUnits are the declarations of helpers.
func helperUnits() []*Unit {
	packages := map[string]string{
		"structured": structuredPackage, "show": showPackage, "picture": picturePackage, "rt": cellPackage,
	}
	var units []*Unit
	doc := ""
	for line := range strings.Lines(helpers) {
		line = strings.TrimSpace(line)
		if comment, ok := strings.CutPrefix(line, "// "); ok {
			doc = comment + "\n"
			continue
		}
		if line == "" {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "func "), "(")
		signature, _, _ := strings.Cut(line, " {")
		units = append(units, &Unit{
			Kind: Func, Names: []Name{{Name: name}}, Line: len(units) + 1, Doc: doc,
			Text: markHelper(line, packages), Source: strings.NewReplacer("~", "", "#", "").Replace(signature),
		})
	}
	return units
}

// markHelper spells out the packages and predeclared types of a helper.
func markHelper(line string, packages map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(line); i++ {
		c := line[i]
		if c != '@' && c != '~' && c != '#' {
			b.WriteByte(c)
			continue
		}
		end := i + 1
		for end < len(line) && line[end] >= 'a' && line[end] <= 'z' {
			end++
		}
		name := line[i+1 : end]
		switch c {
		case '@':
			b.WriteString(markPackage(packages[name], prefix+name))
		case '#':
			b.WriteString(markPackage(name, name))
		default:
			b.WriteString(markBasic(name))
		}
		i = end - 1
	}
	return b.String()
}
