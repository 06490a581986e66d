// What the peer gonb is built of: itself and the program that it asks for.
module peers

go 1.24

require (
	github.com/janpfeifer/gonb v0.10.11
	golang.org/x/tools v0.52.0
)
